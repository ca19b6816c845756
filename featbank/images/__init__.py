"""Turns image files into upright 8-bit sRGB pixels, or into a reason; the one place where files become pixels.

Every decision that changes a pixel (decoder, colour, depth, transparency, orientation) is taken here, once,
and is named by `DECODE_POLICY`. What is cut or resized from the pixels is the work of `featbank.views`.
"""

from featbank.images.formats import MAX_PIXELS
from featbank.images.photo import (
    DECODE_POLICY,
    Photo,
    Source,
    decode_policy,
    keeping_truncated,
    keeps_truncated,
    read_photo,
)
from featbank.images.source import MAX_FILE_BYTES, REASONS

__all__ = [
    "DECODE_POLICY",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "REASONS",
    "Photo",
    "Source",
    "decode_policy",
    "keeping_truncated",
    "keeps_truncated",
    "read_photo",
]
