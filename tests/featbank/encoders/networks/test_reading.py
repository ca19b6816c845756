"""Pooling obeys its definitions whatever the layout; taps are found or near names are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featbank.encoders.networks.modules import expand_taps, fill_randomly, pool, run_taps
from featbank.errors import EncoderError


@given(
    n=st.integers(1, 3),
    channels=st.integers(1, 5),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    kinds=st.lists(st.sampled_from(["mean", "std", "max"]), min_size=1, unique=True),
)
def test_layouts_agree_with_numpy(n: int, channels: int, height: int, width: int, kinds: list[str]) -> None:
    maps = torch.randn(n, channels, height, width)
    flat = maps.numpy().reshape(n, channels, -1).astype(np.float64)
    expected = np.concatenate([getattr(flat, kind)(axis=2) for kind in kinds], axis=1)
    np.testing.assert_allclose(pool(maps, kinds), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        pool(maps.permute(0, 2, 3, 1), kinds, channels_last=True), expected, rtol=1e-4, atol=1e-6
    )
    tokens = torch.cat([torch.full((n, 2, channels), 9.0), maps.flatten(2).transpose(1, 2)], dim=1)
    np.testing.assert_allclose(pool(tokens, kinds, n_prefix_tokens=2), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(pool(tokens, ["cls"], n_prefix_tokens=2), torch.full((n, channels), 9.0))


def test_vectors_pass_and_other_shapes_are_refused() -> None:
    vectors = torch.randn(2, 3)
    assert torch.equal(pool(vectors, ["std", "max"]), vectors)
    with pytest.raises(EncoderError, match="maps, tokens or vectors"):
        pool(torch.zeros(2), ["mean"])
    with pytest.raises(EncoderError, match="class token"):
        pool(torch.zeros(2, 3, 4), ["cls"])


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Sequential(nn.ReLU()))
        self.unused = nn.ReLU()
        self.pair = nn.MultiheadAttention(4, 1)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        maps = self.blocks(self.stem(crops))
        tokens = maps.flatten(2).permute(2, 0, 1)
        return self.pair(tokens, tokens, tokens)[0].mean(dim=0)


def test_patterns_stand_for_one_level() -> None:
    assert expand_taps(Small(), ["blocks.*"], "x") == ("blocks.0", "blocks.1")
    assert expand_taps(Small(), ["blocks.*.*", "out"], "x") == (
        "blocks.0.0",
        "blocks.0.1",
        "blocks.1.0",
        "out",
    )
    with pytest.raises(EncoderError, match="Near names: blocks"):
        expand_taps(Small(), ["block"], "x")


def test_taps_that_do_not_run_or_give_tuples_are_refused() -> None:
    crops = torch.zeros(1, 3, 2, 2)
    with pytest.raises(EncoderError, match="unused did not run"):
        run_taps(Small(), crops, ["unused"])
    with pytest.raises(EncoderError, match="not one tensor"):
        run_taps(Small(), crops, ["pair"])
    with pytest.raises(EncoderError, match="did not run in the forward pass until 'stem'"):
        run_taps(Small(), crops, ["blocks.1"], "stem")


def test_hooks_are_gone_afterwards() -> None:
    network = Small()
    run_taps(network, torch.zeros(1, 3, 2, 2), ["stem", "out"])
    with pytest.raises(EncoderError):
        run_taps(network, torch.zeros(1, 3, 2, 2), ["unused"], "stem")
    assert not any(module._forward_hooks for module in network.modules())


def test_random_weights_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(0)
    first = Small()
    torch.manual_seed(1)
    second = Small()
    for network in (first, second):
        fill_randomly(network, 3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    fill_randomly(second, 4)
    assert not torch.equal(first.stem.weight, second.stem.weight)
    assert not first.stem.bias.any()
    weights = nn.Linear(400, 300)
    fill_randomly(weights, 0)
    assert float(weights.weight.detach().std()) == pytest.approx(1 / 20, rel=0.02)
