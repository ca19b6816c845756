"""Prompt lists by name: an image's similarities with them are features."""

from __future__ import annotations

from typing import Final

PROMPTS: Final[dict[str, tuple[str, ...]]] = {
    # Report, section 2.8 (CLIP-IQA*): five ordinal prompts.
    "quality-levels": tuple(
        f"The quality of this photo is {word}." for word in ("bad", "poor", "fair", "good", "perfect")
    ),
    # CLIP-IQA's antonym pair.
    "good-bad": ("Good photo.", "Bad photo."),
    # Scenes of the UHD-IQA categories that are kept out of training, against everyday ones.
    "scenes": tuple(
        f"A photo of {word}."
        for word in (
            "the sea",
            "a beach",
            "a mountain landscape",
            "a city street",
            "a building",
            "a forest",
            "flowers",
            "an animal",
            "a person",
            "food",
            "an indoor room",
            "the night sky",
        )
    ),
}
"""Prompt lists encoded by the text tower of the encoder's own weights."""

LEARNED: Final = "clip-iqa-plus"
"""Name of CLIP-IQA+'s learned prompts, which need a file of their own."""

STORED: Final = "stored"
"""Name of the prompt features that a checkpoint brings along."""
