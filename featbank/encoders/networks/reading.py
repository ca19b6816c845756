"""Reads layers out of one forward pass and turns maps and token lists into vectors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import torch
from torch import nn

from featbank.errors import EncoderError

OUT = "out"
"""The tap that stands for the network's own vector."""


Read = tuple[str, tuple[str, ...]]
"""A layer and the ways it is pooled."""


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass at the layer named by ``until``."""


def expand_taps(module: nn.Module, taps: Sequence[str], who: str) -> tuple[str, ...]:
    """Replace patterns by layer names, in the network's own order.

    Parameters
    ----------
    module : torch.nn.Module
    taps : sequence of str
        Layer names; ``*`` stands for any text without a dot.
    who : str
        Encoder name for the message.

    Raises
    ------
    EncoderError
        If a pattern fits no layer; the message gives near names.
    """
    names = [name for name, _ in module.named_modules() if name]
    found: dict[str, None] = {}
    for tap in taps:
        if tap == OUT:
            found[OUT] = None
            continue
        pattern = re.compile(r"[^.]*".join(map(re.escape, tap.split("*"))))
        fitting = [name for name in names if pattern.fullmatch(name)]
        if not fitting:
            near = difflib.get_close_matches(tap, names, n=3, cutoff=0.3)
            top = [name for name, _ in module.named_children()]
            raise EncoderError(
                f"encoder {who!r}: tap {tap!r} must name a layer or be {OUT!r}. Near names: "
                f"{', '.join(near) or 'none'}; "
                f"top layers: {', '.join(top[:20])}."
            )
        found.update(dict.fromkeys(fitting))
    return tuple(found)


def run_taps(
    module: nn.Module, crops: torch.Tensor, taps: Sequence[str], until: str = ""
) -> dict[str, torch.Tensor]:
    """Run the network once and keep what the tapped layers give.

    Parameters
    ----------
    module : torch.nn.Module
    crops : float tensor of shape (n, 3, height, width)
    taps : sequence of str
        Layer names without patterns.
    until : str
        Layer after which the pass stops, empty for the whole network.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    EncoderError
        If a tapped layer did not run, or gives something else than one tensor.
    """
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, output: object) -> None:
        if not isinstance(output, torch.Tensor):
            raise EncoderError(
                f"tap {name!r} gives {type(output).__name__}, not one tensor. Tap a layer inside it instead."
            )
        kept[name] = output

    def stop() -> None:
        raise _Stop

    handles = []
    try:
        for name in taps:
            if name != OUT:
                layer = module.get_submodule(name)
                handles.append(layer.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out)))
        if until:
            handles.append(module.get_submodule(until).register_forward_hook(lambda _m, _i, _o: stop()))
        try:
            output = module(crops)
        except _Stop:
            output = None
        if OUT in taps:
            keep(OUT, output)
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name in taps if name not in kept]
    if silent:
        raise EncoderError(
            f"taps {', '.join(silent)} did not run in the forward pass"
            + (f" until {until!r}" if until else "")
            + "."
        )
    return kept


def pool(
    layer: torch.Tensor,
    kinds: Sequence[str],
    *,
    channels_last: bool = False,
    n_prefix_tokens: int = 0,
    who: str = "",
) -> torch.Tensor:
    """Turn what a layer gave into one vector for each crop.

    Parameters
    ----------
    layer : float tensor
        Maps (n, channels, height, width) or, with ``channels_last``, (n, height, width, channels); token lists
        (n, n_tokens, channels); or vectors (n, channels), which pass unchanged.
    kinds : sequence of {"mean", "std", "max", "cls"}
        Over positions, without the prefix tokens; ``cls`` is the first token. Concatenated in order.
    channels_last : bool
    n_prefix_tokens : int
    who : str
        Name for the message.

    Returns
    -------
    float32 tensor of shape (n, channels * n_kinds)

    Raises
    ------
    EncoderError
        If the shape is another one, or there is no class token.
    """
    layer = layer.float()
    if layer.ndim == 2:
        return layer
    if layer.ndim == 4:
        tokens = layer.flatten(1, 2) if channels_last else layer.flatten(2).transpose(1, 2)
        n_prefix = 0
    elif layer.ndim == 3:
        tokens, n_prefix = layer, n_prefix_tokens
    else:
        raise EncoderError(
            f"{who}: a tapped layer must give maps, tokens or vectors, got shape {tuple(layer.shape)}."
        )
    if "cls" in kinds and n_prefix == 0:
        raise EncoderError(
            f"{who}: pool 'cls' needs a class token, and this layer has none. Use mean, std or max instead."
        )
    # Sums of many values in single precision: the order must not depend on the batch, so positions are last.
    patches = tokens[:, n_prefix:].transpose(1, 2).contiguous()
    pooled = {
        "mean": lambda: patches.mean(dim=2),
        "std": lambda: patches.std(dim=2, correction=0),
        "max": lambda: patches.amax(dim=2),
        "cls": lambda: tokens[:, 0],
    }
    return torch.cat([pooled[kind]() for kind in kinds], dim=1)


class TapReader(nn.Module):
    """One forward pass, read at layers and pooled.

    Parameters
    ----------
    network : torch.nn.Module
    reads : sequence of (str, tuple of str)
        Layers and how they are pooled.
    until : str
        Layer after which the pass stops, empty for the whole network.
    channels_last, n_prefix_tokens, who
        As in `pool`.
    """

    def __init__(
        self,
        network: nn.Module,
        reads: Sequence[Read],
        until: str,
        *,
        channels_last: bool,
        n_prefix_tokens: int,
        who: str,
    ) -> None:
        super().__init__()
        self.network = network
        self.reads = tuple(reads)
        self.until = until
        self.channels_last, self.n_prefix_tokens, self.who = channels_last, n_prefix_tokens, who

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one (n, n_columns) for each read."""
        layers = run_taps(self.network, crops, list(dict.fromkeys(tap for tap, _ in self.reads)), self.until)
        return tuple(
            pool(
                layers[tap],
                kinds,
                channels_last=self.channels_last,
                n_prefix_tokens=self.n_prefix_tokens,
                who=self.who,
            )
            for tap, kinds in self.reads
        )
