"""Targets, losses, gates, pruning, and the two stages of a student."""
