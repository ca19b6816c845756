"""A GPU gives the features that the processor gives, under the same keys. Skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from featbank.bank import Bank
from featbank.digest import digest_json
from featbank.encoders import make_encoder
from featbank.encoders.networks.encoder import DEVICE_VARIABLE, choose_device
from featbank.feature import make_feature
from tests.support.network_encoders import SMALL_NETWORK, SMALL_RECIPE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

GPU = "cuda"
NETWORKS = {
    "convolutions": (f"{SMALL_NETWORK}&taps=blocks.1,blocks.3&pool=mean+std", (96, 64)),
    "attention": ("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k?random=2&pool=cls+mean", (224, 224)),
    "windows": ("timm:swin_tiny_patch4_window7_224.ms_in1k?random=1&taps=layers.1", (224, 224)),
}


def encode_on(
    device: str, name: str, crops: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> NDArray[np.float32]:
    monkeypatch.setenv(DEVICE_VARIABLE, device)
    assert choose_device().type == device
    return make_encoder(name).encode(crops)


def relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def crops_of(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (6, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("network", NETWORKS)
def test_features_are_those_of_the_processor(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, size = NETWORKS[network]
    crops = crops_of(size)
    expected = encode_on("cpu", name, crops, monkeypatch)
    assert relative(encode_on(GPU, name, crops, monkeypatch), expected) <= 1e-5


@pytest.mark.parametrize("network", NETWORKS)
def test_bf16_is_near_fp32(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, size = NETWORKS[network]
    crops = crops_of(size)
    expected = encode_on(GPU, name, crops, monkeypatch)
    found = encode_on(GPU, f"{name}&precision=bf16", crops, monkeypatch)
    assert 0.0 < relative(found, expected) <= 3e-2


def test_the_device_is_not_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for device in ("cpu", GPU):
        monkeypatch.setenv(DEVICE_VARIABLE, device)
        digests.add(digest_json(make_feature(SMALL_NETWORK, "squash_64x64").identity))
    assert len(digests) == 1


def test_the_command_fills_a_bank_from_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 256, size=(80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{k}.png")
    (tmp_path / "r.toml").write_text(SMALL_RECIPE)
    common = ["features", str(photos), "--recipe", str(tmp_path / "r.toml"), "--workers", "2"]
    for device in ("cpu", GPU):
        # A process each, as users start it: its two workers open the device at once.
        subprocess.run(
            [sys.executable, "-m", "featbank", *common, "--bank", str(tmp_path / device), "--device", device],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
    expected, found = (next(iter(Bank(tmp_path / device).features())) for device in ("cpu", GPU))
    assert found.digest == expected.digest
    keys = sorted(expected.keys())
    assert len(keys) == 4
    assert relative(found.read(keys), expected.read(keys)) <= 1e-5
