"""`params.yaml` as typed sections; imports no torch."""
