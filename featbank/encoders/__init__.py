"""Turns crops into vectors with frozen encoders, named ``family:name``; knows nothing of views, files or scores."""

from __future__ import annotations

from featbank.encoders.custom import allow_code
from featbank.encoders.registry import list_encoders, make_encoder
from featbank.encoders.spec import ROLES, Encoder, EncoderSpec
from featbank.encoders.weights import (
    check_weights,
    find_sources,
    has_random_weights,
    missing_weights,
    random_weights_note,
)

__all__ = [
    "ROLES",
    "Encoder",
    "EncoderSpec",
    "allow_code",
    "check_weights",
    "find_sources",
    "has_random_weights",
    "list_encoders",
    "make_encoder",
    "missing_weights",
    "random_weights_note",
]
