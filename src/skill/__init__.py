"""SKILL: similarity-aware knowledge distillation of speech self-supervised models."""

__version__ = "0.1.0"
