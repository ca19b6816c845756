"""Builds open_clip models without weights or a connection; runs a text tower once for each list of prompts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import open_clip
import torch
from torch import nn

from featbank.atomic import replacing
from featbank.digest import digest_json
from featbank.encoders.macs import count_forward
from featbank.encoders.networks import modules
from featbank.encoders.networks.catalogue import LEARNED, LEARNED_PROMPTS, PROMPTS, Blueprint
from featbank.encoders.networks.loading import load_stored, match_state
from featbank.encoders.weights import content_digest, weights_folder
from featbank.errors import EncoderError, unknown_name

N_CONTEXT = 16
"""Learned context tokens of CLIP-IQA+."""

LEARNED_CLASSES = ("Good photo.", "Bad photo.")


@contextmanager
def _quiet() -> Iterator[None]:
    # open_clip warns that weights are random: here they are always loaded, or random by request, afterwards.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def build_clip(model: str) -> nn.Module:
    """Build both towers of an open_clip architecture on the default device, weights as initialised.

    Raises UnknownNameError if open_clip has no architecture of this name; EncoderError if the text
    tower belongs to a library that would have to download its configuration.
    """
    config = open_clip.get_model_config(model)
    if config is None:
        raise unknown_name("open_clip architecture", model, open_clip.list_models(), "featbank list encoders")
    if "hf_model_name" in config["text_cfg"]:
        raise EncoderError(
            f"open_clip architecture {model!r} takes its text tower from another library that downloads it; "
            "choose an architecture of open_clip's own, or the same image tower from timm."
        )
    device = torch.empty(0).device  # older releases of torch do not name the device of a surrounding context
    with _quiet():
        return open_clip.create_model(model, pretrained=None, device=device, load_weights=False)


def build_image_tower(model: str) -> nn.Module:
    """Build the image tower alone; its forward gives the projected embedding."""
    return build_clip(model).visual


def prompt_tokens(model: str, prompts: Sequence[str]) -> torch.Tensor:
    """Turn prompts into token numbers of shape (n_prompts, context_length); the vocabulary ships with open_clip."""
    with torch.device("cpu"):
        return open_clip.get_tokenizer(model)(list(prompts))


class PromptTower(nn.Module):
    """A CLIP model whose forward turns token numbers into unit vectors.

    Parameters
    ----------
    context : Tensor of shape (16, width) or None
        Learned context of CLIP-IQA+: half of it stands before, half after the words of every prompt.
    """

    def __init__(self, clip: nn.Module, context: torch.Tensor | None = None) -> None:
        super().__init__()
        self.clip = clip
        self.context = context

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return float (n_prompts, n_features), each of norm 1."""
        if self.context is None:
            return nn.functional.normalize(self.clip.encode_text(tokens), dim=-1)
        return nn.functional.normalize(self._encode_with_context(tokens, self.context), dim=-1)

    def _encode_with_context(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Place the context around the words of each prompt and run the text transformer.

        References
        ----------
        Wang, Chan, Loy, Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023 (CLIP-IQA+).
        """
        words = self.clip.token_embedding(tokens)
        half = len(context) // 2
        rows, ends = [], []
        for row, numbers in zip(words, tokens, strict=True):
            # The end token has the highest number of the vocabulary: start, words, end, padding.
            end = int(numbers.argmax())
            parts = [row[:1], context[:half], row[1:end], context[half:], row[end:]]
            rows.append(torch.cat(parts)[: len(row)])
            ends.append(end + len(context))
        x = torch.stack(rows) + self.clip.positional_embedding
        x = self.clip.ln_final(self.clip.transformer(x, attn_mask=self.clip.attn_mask))
        return x[torch.arange(len(x)), torch.tensor(ends)] @ self.clip.text_projection


def count_text_macs(model: str, n_prompts: int) -> int:
    """Count the multiply-accumulates of encoding a prompt list, which is paid once and not for every image."""
    with torch.device("meta"):
        clip = build_clip(model).eval()
        tokens = torch.zeros(n_prompts, clip.context_length, dtype=torch.long)
    return count_forward(PromptTower(clip), tokens).macs


N_LEARNED: Final = len(LEARNED_CLASSES)
EPOCH: Final = 1
"""Raised with any change of this module or of `clip` that moves the numbers."""


def prompt_texts(prompts: str) -> tuple[str, ...]:
    """Return the texts of a prompt list by name."""
    return LEARNED_CLASSES if prompts == LEARNED else PROMPTS[prompts]


def encode_prompts(blueprint: Blueprint, prompts: str, seed: int | None) -> torch.Tensor:
    """Return the unit vectors of a prompt list, float32 (n_prompts, n_features); computed once and kept."""
    return _encode(blueprint, prompts, seed, _digests(blueprint, prompts, seed))


def count_prompt_gmacs(blueprint: Blueprint, prompts: str) -> float:
    """Return the GMACs of encoding a prompt list: paid once, whatever the number of images."""
    return count_text_macs(blueprint.text_model, len(prompt_texts(prompts))) / 1e9


def _digests(blueprint: Blueprint, prompts: str, seed: int | None) -> tuple[str, ...]:
    if seed is not None:
        return (f"random:{seed}",)
    learned = (content_digest(LEARNED_PROMPTS),) if prompts == LEARNED else ()
    return (content_digest(blueprint.source), *learned)


@lru_cache(maxsize=64)
def _encode(blueprint: Blueprint, prompts: str, seed: int | None, digests: tuple[str, ...]) -> torch.Tensor:
    if seed is not None:
        return _run(blueprint, prompts, seed)
    name = digest_json(
        {"weights": list(digests), "prompts": list(prompt_texts(prompts)), "list": prompts, "epoch": EPOCH}
    )
    path = weights_folder() / "prompts" / f"{name}.npy"
    if path.is_file():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    features = _run(blueprint, prompts, None)
    _keep(path, features.numpy())
    return features


def _run(blueprint: Blueprint, prompts: str, seed: int | None) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        clip = build_clip(blueprint.text_model)
    context = None
    if seed is None:
        stored = load_stored(blueprint.source)
        clip.load_state_dict(match_state(blueprint.base, stored, clip.state_dict()), strict=True)
        if prompts == LEARNED:
            context = load_stored(LEARNED_PROMPTS)["ctx"]
    else:
        modules.fill_randomly(clip, seed)
        if prompts == LEARNED:
            tokens = clip.token_embedding.weight
            context = tokens[1 : 1 + N_CONTEXT].detach().clone()
    tower = PromptTower(clip.eval().requires_grad_(False), context)
    with torch.no_grad():
        return tower(prompt_tokens(blueprint.text_model, prompt_texts(prompts))).float()


def _keep(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "text features") as scratch:
        np.save(scratch, features, allow_pickle=False)
