"""Teachers: fetched from the hub, or pretrained here."""
