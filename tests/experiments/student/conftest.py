"""Photographs to learn from, as for distillation."""

from tests.featbank.distill.conftest import photographs

__all__ = ["photographs"]
