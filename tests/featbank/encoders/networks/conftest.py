"""Tests of network encoders run where the optional packages are; one place says so."""

import importlib.util
from pathlib import Path

import pytest

if any(
    importlib.util.find_spec(name) is None
    for name in ("torch", "torchvision", "timm", "open_clip", "safetensors")
):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def weights_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder of the test's own."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(folder))
    return folder
