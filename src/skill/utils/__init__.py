"""Errors, files, downloads, progress, provenance, statistics."""
