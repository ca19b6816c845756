"""Runs a text tower once for each prompt list and keeps the result beside the weights."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch

from featbank.digest import digest_json
from featbank.encoders.networks import random_weights
from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.catalogue import LEARNED_PROMPTS
from featbank.encoders.networks.clip import (
    LEARNED_CLASSES,
    N_CONTEXT,
    PromptTower,
    build_clip,
    count_text_macs,
    prompt_tokens,
)
from featbank.encoders.networks.loading import load_stored, match_state
from featbank.encoders.networks.prompts import LEARNED, PROMPTS
from featbank.encoders.weights import content_digest, weights_folder

N_LEARNED: Final = len(LEARNED_CLASSES)
EPOCH: Final = 1
"""Raised with any change of this module or of `clip` that moves the numbers."""


def prompt_texts(prompts: str) -> tuple[str, ...]:
    """Return the texts of a prompt list by name."""
    return LEARNED_CLASSES if prompts == LEARNED else PROMPTS[prompts]


def encode_prompts(blueprint: Blueprint, prompts: str, seed: int | None) -> torch.Tensor:
    """Return the unit vectors of a prompt list, computed once for each set of weights and kept beside them.

    Parameters
    ----------
    blueprint : Blueprint
        With a text tower.
    prompts : str
        Name of the list.
    seed : int or None
        Of random weights.

    Returns
    -------
    float32 tensor of shape (n_prompts, n_features)
    """
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
        clip.load_state_dict(match_state(blueprint.base, stored, clip.state_dict(), []), strict=True)
        if prompts == LEARNED:
            context = load_stored(LEARNED_PROMPTS)["ctx"]
    else:
        random_weights.fill_randomly(clip, seed)
        if prompts == LEARNED:
            tokens = clip.token_embedding.weight
            context = tokens[1 : 1 + N_CONTEXT].detach().clone()
    tower = PromptTower(clip.eval().requires_grad_(False), context)
    with torch.no_grad():
        return tower(prompt_tokens(blueprint.text_model, prompt_texts(prompts))).float()


def _keep(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".npy")
    with os.fdopen(handle, "wb") as file:
        np.save(file, features, allow_pickle=False)
    Path(name).replace(path)
