"""Other engines give torch's numbers, from graphs that are kept, or are refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from featbank.bank import Bank
from featbank.cli import main
from featbank.digest import digest_json
from featbank.encoders import make_encoder
from featbank.encoders.engine import ENGINE_VARIABLE, ENGINES, choose_engine
from featbank.encoders.networks import encoder as encoder_module
from featbank.encoders.networks import engines
from featbank.errors import EncoderSetupError
from featbank.extract import EXTRACTION_LOG
from featbank.feature import make_feature
from tests.support.network_encoders import SMALL_NETWORK, SMALL_RECIPE, network_encoders, small_size

SWIN = "timm:swin_tiny_patch4_window7_224.ms_in1k"
VIT = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
NETWORKS = {
    "maps, several taps and pools": (f"{SMALL_NETWORK}&taps=blocks.1,blocks.3&pool=mean+std", (96, 64)),
    "channels last": (f"{SWIN}?random=1&taps=layers.1&pool=mean+max", (224, 224)),
    "tokens with a class": (f"{VIT}?random=2&taps=blocks.2&pool=cls+mean", (224, 224)),
    "stopped early, unit length": (f"{SMALL_NETWORK}&until=blocks.2&pool=mean&l2=1", (64, 64)),
    "torchvision": ("torchvision:resnet18/IMAGENET1K_V1?random=3", (96, 96)),
}  # fmt: skip
OTHERS = [
    pytest.param(
        engine,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(engine) is None, reason=f"{engine} is not installed"
        ),
    )
    for engine in ENGINES
    if engine != "torch"
]


@pytest.fixture(autouse=True)
def _own_engine(weights_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty weights folder, and an engine that is torch again after the test."""
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    encoder_module._by_engine.cache_clear()


def crops_of(size: tuple[int, int], n: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, size=(n, *size, 3), dtype=np.uint8)


def deviation(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_an_engine_gives_torchs_numbers(kind: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, size = NETWORKS[kind]
    encoder, crops = make_encoder(name), crops_of(size)
    expected = encoder.encode(crops)
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    found = encoder.encode(crops)
    assert found.dtype == np.float32
    assert np.abs(found).max() > 0
    assert deviation(found, expected) <= 1e-5
    # One crop or many: the graph's batch is free.
    assert deviation(encoder.encode(crops[:1]), expected[:1]) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("name", network_encoders())
def test_an_engine_gives_torchs_numbers_for_any_recipe(
    name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder(name)
    crops = crops_of(small_size(encoder))
    expected = encoder.encode(crops)
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    assert deviation(encoder.encode(crops), expected) <= 1e-5


@pytest.mark.parametrize("engine", OTHERS)
def test_the_engine_is_no_part_of_the_key(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_json(make_feature(SMALL_NETWORK, "squash_64x64").identity)
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    assert digest_json(make_feature(SMALL_NETWORK, "squash_64x64").identity) == digest


def test_bfloat16_by_openvino_is_near_torch_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    crops = crops_of((96, 96))
    expected = make_encoder(SMALL_NETWORK).encode(crops)
    monkeypatch.setenv(ENGINE_VARIABLE, "openvino")
    found = make_encoder(f"{SMALL_NETWORK}&precision=bf16").encode(crops)
    assert deviation(found, expected) < 0.1


@pytest.mark.parametrize("engine", OTHERS)
def test_a_graph_is_exported_once_and_read_afterwards(
    engine: str, monkeypatch: pytest.MonkeyPatch, weights_home: Path
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    encoder, crops = make_encoder(SMALL_NETWORK), crops_of((64, 64))
    first = encoder.encode(crops)
    [kept] = (weights_home / "engines").iterdir()
    encoder_module._by_engine.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(engines, "_export", None)  # a second export would fail
        np.testing.assert_array_equal(encoder.encode(crops), first)
    # A damaged file is noticed and made anew.
    for name in ("graph.onnx", "probe.npz"):
        whole = (kept / name).read_bytes()
        (kept / name).write_bytes(whole[: len(whole) // 2])
        encoder_module._by_engine.cache_clear()
        np.testing.assert_array_equal(encoder.encode(crops), first)
        assert len((kept / name).read_bytes()) == len(whole)
    assert [path.name for path in (weights_home / "engines").iterdir()] == [kept.name]


@pytest.mark.parametrize("engine", OTHERS)
def test_an_engine_that_deviates_from_torch_is_refused(
    engine: str, monkeypatch: pytest.MonkeyPatch, weights_home: Path
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    encoder, crops = make_encoder(SMALL_NETWORK), crops_of((64, 64))
    encoder.encode(crops)
    [kept] = (weights_home / "engines").iterdir()
    with np.load(kept / "probe.npz") as probe:
        blocks = {name: probe[name] for name in probe.files}
    blocks["block_0"] = blocks["block_0"] + 1e-4 * np.abs(blocks["block_0"]).max()
    np.savez(kept / "probe.npz", **blocks)
    encoder_module._by_engine.cache_clear()
    with pytest.raises(
        EncoderSetupError, match=rf"engine {engine}: .*deviates by 1\.\de-04\. Use --engine torch"
    ):
        encoder.encode(crops)


@pytest.mark.parametrize("engine", OTHERS)
def test_a_weights_folder_that_cannot_be_written_costs_only_the_keeping(
    engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(blocked))
    crops = crops_of((64, 64))
    expected = make_encoder(SMALL_NETWORK).encode(crops)
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    assert deviation(make_encoder(SMALL_NETWORK).encode(crops), expected) <= 1e-5


def test_what_an_engine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "tensorrt")
    with pytest.raises(
        EncoderSetupError, match="must be one of torch, onnxruntime, openvino, got 'tensorrt'"
    ):
        choose_engine()
    monkeypatch.setenv(ENGINE_VARIABLE, "onnxruntime")
    with pytest.raises(EncoderSetupError, match="offers fp32, the encoder asks for bf16"):
        choose_engine("bf16")
    with pytest.raises(EncoderSetupError, match="the device is cuda"):
        choose_engine(device="cuda")
    monkeypatch.setenv(ENGINE_VARIABLE, "")
    assert choose_engine("bf16", "cuda") == "torch"


@pytest.mark.parametrize("engine", OTHERS)
def test_features_by_an_engine_fill_the_same_bank(engine: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, size=(80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{k}.png")
    recipe = tmp_path / "small.toml"
    recipe.write_text(SMALL_RECIPE)
    common = ["features", str(photos), "--recipe", str(recipe), "--workers", "1"]
    assert main([*common, "--bank", str(tmp_path / "torch")]) == 0
    assert main([*common, "--bank", str(tmp_path / "other"), "--engine", engine]) == 0
    digest = digest_json(make_feature(SMALL_NETWORK, "squash_64x64").identity)
    banks = [Bank(tmp_path / name) for name in ("other", "torch")]
    folders = [folder for bank in banks for folder in bank.features() if folder.digest == digest]
    keys = sorted(folders[0].keys())
    assert len(keys) == 3
    assert deviation(*(folder.read(keys) for folder in folders)) <= 1e-5
    entry = json.loads((tmp_path / "other" / EXTRACTION_LOG).read_text())
    assert entry["engine"] == engine
