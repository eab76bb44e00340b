"""Encoders in the formats of others."""
