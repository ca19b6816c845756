"""Builds open_clip models without weights and without a connection, and runs their text tower once per prompt list."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import open_clip
import torch
from torch import nn

from featbank.encoders.macs import count_forward
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

    Raises
    ------
    UnknownNameError
        If open_clip has no architecture of this name.
    EncoderError
        If the text tower belongs to a library that would have to download its configuration.
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
    clip : torch.nn.Module
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
