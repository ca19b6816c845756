"""Turns crops into vectors with frozen encoders, named ``family:name``; knows nothing of views, files or scores."""

from __future__ import annotations

from featbank.encoders.custom import allow_code
from featbank.encoders.registry import EncoderRegistry, list_encoders, make_encoder, register
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
    "EncoderRegistry",
    "EncoderSpec",
    "allow_code",
    "check_weights",
    "find_sources",
    "has_random_weights",
    "list_encoders",
    "make_encoder",
    "missing_weights",
    "random_weights_note",
    "register",
]
