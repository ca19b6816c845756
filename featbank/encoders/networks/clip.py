"""Builds open_clip models without weights or a connection; runs a text tower once for each list of prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
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
from featbank.errors import EncoderError

N_CONTEXT = 16
"""Learned context tokens of CLIP-IQA+."""

LEARNED_CLASSES = ("Good photo..", "Bad photo..")
"""The words among CLIP-IQA+'s learned context: its code adds a full stop to names that end in one, and the two
together are a token of their own."""


def build_clip(model: str) -> nn.Module:
    """Build both towers of an open_clip architecture on the default device, weights as initialised.

    Raises EncoderError if the text tower belongs to a library that would have to download its configuration.
    """
    if "hf_model_name" in open_clip.get_model_config(model)["text_cfg"]:
        raise EncoderError(
            f"open_clip architecture {model!r} takes its text tower from another library that downloads it; "
            "choose an architecture of open_clip's own, or the same image tower from timm."
        )
    device = torch.empty(0).device  # older releases of torch do not name the device of a surrounding context
    # open_clip warns that weights are random: here they are always loaded, or random by request, afterwards.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        return open_clip.create_model(model, pretrained=None, device=device, load_weights=False)
    finally:
        root.setLevel(level)


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
        """Return float (n_prompts, n_features), each of norm 1.

        References
        ----------
        Wang, Chan, Loy, Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023 (CLIP-IQA+).
        """
        clip, context = self.clip, self.context
        if context is None:
            return nn.functional.normalize(clip.encode_text(tokens), dim=-1)
        half = len(context) // 2
        # The end token has the highest number of the vocabulary: start, words, end, padding.
        ends = tokens.argmax(dim=1).tolist()
        rows = [
            torch.cat([row[:1], context[:half], row[1:end], context[half:], row[end:]])[: len(row)]
            for row, end in zip(clip.token_embedding(tokens), ends, strict=True)
        ]
        x = torch.stack(rows) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
        read = x[torch.arange(len(x)), torch.tensor(ends) + len(context)]
        return nn.functional.normalize(read @ clip.text_projection, dim=-1)


EPOCHS: Final = {LEARNED: 2}
"""Raised, for the prompt lists whose numbers move, with a change of this module; 1 for all others."""


def prompt_texts(prompts: str) -> tuple[str, ...]:
    """Return the texts of a prompt list by name."""
    return LEARNED_CLASSES if prompts == LEARNED else PROMPTS[prompts]


def count_prompt_gmacs(blueprint: Blueprint, prompts: str) -> float:
    """Return the GMACs of encoding a prompt list: paid once, whatever the number of images."""
    with torch.device("meta"):
        clip = build_clip(blueprint.text_model).eval()
        tokens = torch.zeros(len(prompt_texts(prompts)), clip.context_length, dtype=torch.long)
    return count_forward(PromptTower(clip), tokens).macs / 1e9


def encode_prompts(blueprint: Blueprint, prompts: str, seed: int | None) -> torch.Tensor:
    """Return the unit vectors of a prompt list, float32 (n_prompts, n_features); computed once and kept."""
    if seed is not None:
        return _run(blueprint, prompts, seed)
    sources = (blueprint.source, LEARNED_PROMPTS) if prompts == LEARNED else (blueprint.source,)
    name = digest_json(
        {
            "weights": [content_digest(source) for source in sources],
            "prompts": list(prompt_texts(prompts)),
            "list": prompts,
            "epoch": EPOCHS.get(prompts, 1),
        }
    )
    path = weights_folder() / "prompts" / f"{name}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "text features") as scratch:
            np.save(scratch, _run(blueprint, prompts, None).numpy(), allow_pickle=False)
    return torch.from_numpy(np.load(path, allow_pickle=False))


@lru_cache(maxsize=64)
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
        modules.fill_randomly(clip, seed, blueprint.base)
        if prompts == LEARNED:
            tokens = clip.token_embedding.weight
            context = tokens[1 : 1 + N_CONTEXT].detach().clone()
    tower = PromptTower(clip.eval().requires_grad_(False), context)
    with torch.no_grad():
        return tower(prompt_tokens(blueprint.text_model, prompt_texts(prompts))).float()
