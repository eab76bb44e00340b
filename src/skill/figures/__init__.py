"""Pictures: each module has functions that read one small table and return a figure."""
