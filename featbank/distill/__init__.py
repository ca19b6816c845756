"""Distillation: a small network that stands in for the encoders of a fitted run."""
