"""What every encoder promises, as one class: a new encoder's test inherits it and gives the fixture ``encoder``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from featbank.encoders import ROLES, Encoder, list_encoders, make_encoder
from featbank.errors import EncoderError


def nasty_crops(height: int, width: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield crops on which statistics degenerate: no variance, one pixel, nothing but clipping, nothing but noise."""
    shape = (1, height, width, 3)
    rng = np.random.default_rng(0)
    for level in (0, 1, 127, 255):
        yield f"constant {level}", np.full(shape, level, dtype=np.uint8)
    impulse = np.zeros(shape, dtype=np.uint8)
    impulse[0, height // 2, width // 2] = 255
    yield "impulse", impulse
    board = (np.add.outer(np.arange(height), np.arange(width)) % 2 * 255).astype(np.uint8)
    yield "checkerboard of pixels", np.repeat(board[None, :, :, None], 3, axis=3)
    one_channel = np.zeros(shape, dtype=np.uint8)
    one_channel[..., 2] = 255
    yield "pure blue", one_channel
    halves = np.zeros(shape, dtype=np.uint8)
    halves[:, :, width // 2 :] = 255
    yield "step", halves
    yield "noise", rng.integers(0, 256, shape, dtype=np.uint8)
    yield "clipped noise", (rng.integers(0, 2, shape, dtype=np.uint8) * 255).astype(np.uint8)
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    yield "ramp", np.broadcast_to(ramp[None, None, :, None], shape).copy()


class EncoderContract:
    """Laws that hold for every encoder.

    A subclass may override ``height``, ``width`` (a size the encoder takes), ``sizes`` (more of them), ``bad_size``
    (one that it refuses, or None) and ``tolerance`` (relative, for arithmetic that depends on the batch).
    """

    height = 72
    width = 100
    sizes: tuple[tuple[int, int], ...] = ((8, 8), (9, 200), (131, 67))
    bad_size: tuple[int, int] | None = (7, 64)
    tolerance = 0.0

    @pytest.fixture
    def crops(self) -> NDArray[np.uint8]:
        rng = np.random.default_rng(1)
        smooth = np.cumsum(np.cumsum(rng.normal(size=(3, self.height, self.width, 3)), axis=1), axis=2)
        smooth -= smooth.min(axis=(1, 2), keepdims=True)
        smooth *= 255 / smooth.max(axis=(1, 2), keepdims=True)
        return smooth.astype(np.uint8)

    def assert_same(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        if self.tolerance:
            np.testing.assert_allclose(found, expected, rtol=self.tolerance, atol=self.tolerance)
        else:
            np.testing.assert_array_equal(found, expected)

    def test_declares_what_the_registry_lists(self, encoder: Encoder) -> None:
        assert encoder.spec in list_encoders()
        assert encoder.spec.role in ROLES
        assert encoder.spec.title
        assert encoder.spec.reference
        assert encoder.spec.licence

    def test_gives_the_declared_width_and_type(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        vectors = encoder.encode(crops)
        assert vectors.shape == (len(crops), encoder.spec.n_features)
        assert vectors.dtype == np.float32

    def test_names_every_column_once(self, encoder: Encoder) -> None:
        names = encoder.feature_names()
        if names is not None:
            assert len(names) == len(set(names)) == encoder.spec.n_features

    def test_batch_equals_single_crops(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        together = encoder.encode(crops)
        for i in range(len(crops)):
            self.assert_same(together[i], encoder.encode(crops[i : i + 1])[0])

    def test_order_of_the_batch_is_irrelevant(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        order = [2, 0, 1]
        self.assert_same(encoder.encode(crops[order]), encoder.encode(crops)[order])

    def test_tells_different_crops_apart(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        vectors = encoder.encode(crops)
        assert not np.array_equal(vectors[0], vectors[1])

    def test_second_encoder_gives_the_same(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        again = make_encoder(encoder.spec.name)
        self.assert_same(again.encode(crops), encoder.encode(crops))
        assert again.identity() == encoder.identity()

    def test_leaves_the_crops_alone(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        before = crops.copy()
        crops.flags.writeable = False
        encoder.encode(crops)
        np.testing.assert_array_equal(crops, before)

    def test_takes_crops_that_are_views_of_memory(self, encoder: Encoder, crops: NDArray[np.uint8]) -> None:
        mirrored = crops[:, :, ::-1]
        self.assert_same(encoder.encode(mirrored), encoder.encode(np.ascontiguousarray(mirrored)))

    def test_is_finite_on_nasty_crops(self, encoder: Encoder) -> None:
        for kind, crop in nasty_crops(self.height, self.width):
            assert np.isfinite(encoder.encode(crop)).all(), kind

    def test_is_finite_on_odd_sizes(self, encoder: Encoder) -> None:
        for height, width in self.sizes:
            for kind, crop in nasty_crops(height, width):
                if kind in {"constant 0", "constant 255", "impulse", "clipped noise"}:
                    assert np.isfinite(encoder.encode(crop)).all(), (kind, height, width)

    def test_takes_an_empty_batch(self, encoder: Encoder) -> None:
        empty = np.empty((0, self.height, self.width, 3), dtype=np.uint8)
        assert encoder.encode(empty).shape == (0, encoder.spec.n_features)

    def test_refuses_a_size_it_cannot_take(self, encoder: Encoder) -> None:
        if self.bad_size is None:
            encoder.check_size(1, 1)
            return
        with pytest.raises(EncoderError, match=encoder.spec.name):
            encoder.encode(np.zeros((1, *self.bad_size, 3), dtype=np.uint8))
        with pytest.raises(EncoderError, match=encoder.spec.name):
            encoder.count_macs(*self.bad_size)

    @pytest.mark.parametrize(
        "crops_of_wrong_kind",
        [
            np.zeros((1, 72, 100, 3), dtype=np.float32),
            np.zeros((72, 100, 3), dtype=np.uint8),
            np.zeros((1, 72, 100, 4), dtype=np.uint8),
            [[0, 1], [2, 3]],
        ],
        ids=["float", "no batch axis", "four channels", "list"],
    )
    def test_refuses_other_inputs(self, encoder: Encoder, crops_of_wrong_kind: object) -> None:
        with pytest.raises(EncoderError, match="crops must"):
            encoder.encode(crops_of_wrong_kind)  # type: ignore[arg-type]

    def test_identity_is_json_and_holds_the_pass(self, encoder: Encoder) -> None:
        identity = encoder.identity()
        assert json.loads(json.dumps(identity, allow_nan=False)) == identity
        assert {"name", "weights", "taps", "pooling", "normalisation", "numerics", "epoch"} <= set(identity)
        assert isinstance(identity["epoch"], int)
        forward = encoder.pass_identity()
        assert json.loads(json.dumps(forward, allow_nan=False)) == forward
        assert not {"taps", "pooling"} & set(forward)

    def test_cost_is_a_count_that_grows_with_the_crop(self, encoder: Encoder) -> None:
        costs = [encoder.count_macs(self.height * k, self.width * k) for k in (1, 2, 3)]
        assert all(isinstance(cost, int) for cost in costs)
        assert 0 < costs[0] < costs[1] < costs[2]
        assert encoder.n_params >= 0
