"""Looking up what is there builds no network; whatever could change a network's feature makes it built again."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from featbank import extract as extraction
from featbank.bank import Bank
from featbank.cli import main
from featbank.extract import KNOWN_FEATURES_NAME, FeatureRequest, known_folder, open_folder
from tests.support.datasets import write_csv, write_image

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "timm", "torchvision", "open_clip")),
    reason="needs the optional packages of network encoders",
)
REQUEST = FeatureRequest("timm:mobilenetv3_small_050.lamb_in1k?random=0", "squash_32x32")

RECIPE = f"""
recipe_version = 1
[[band]]
name = "a"
encoder = "{REQUEST.encoder}"
view = "{REQUEST.view}"
[regression]
alpha = [1.0]
"""


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path / "weights"))
    return Bank(tmp_path / "bank")


@needs_torch
def test_the_second_look_finds_the_same_folder(bank: Bank) -> None:
    assert known_folder(bank, REQUEST) is None
    built = open_folder(bank, REQUEST)
    known = known_folder(Bank(bank.root), REQUEST)
    assert known is not None
    assert (known.path, known.spec) == (built.path, built.spec)


@needs_torch
def test_another_encoder_view_or_aggregate_is_not_known(bank: Bank) -> None:
    open_folder(bank, REQUEST)
    for other in (
        FeatureRequest(REQUEST.encoder.replace("random=0", "random=1"), REQUEST.view),
        FeatureRequest(REQUEST.encoder, "squash_64x64"),
        FeatureRequest(REQUEST.encoder, REQUEST.view, "mean+std"),
    ):
        assert known_folder(bank, other) is None


@needs_torch
def test_new_weights_and_new_libraries_make_it_unknown(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_folder(bank, REQUEST)
    record = tmp_path / "weights" / "timm" / "x.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert known_folder(bank, REQUEST) is None
    record.unlink()
    assert known_folder(bank, REQUEST) is not None
    extraction._installation.cache_clear()
    monkeypatch.setattr(extraction, "_version", lambda library: "99")
    assert known_folder(bank, REQUEST) is None
    extraction._installation.cache_clear()


@needs_torch
def test_an_entry_that_leads_to_another_feature_is_not_believed(bank: Bank) -> None:
    open_folder(bank, REQUEST)
    other = open_folder(bank, FeatureRequest(REQUEST.encoder, "squash_64x64"))
    path = bank.root / KNOWN_FEATURES_NAME
    content = json.loads(path.read_text())
    content["features"] = dict.fromkeys(content["features"], other.digest)
    path.write_text(json.dumps(content))
    assert known_folder(bank, REQUEST) is None
    path.write_text(json.dumps(content)[:-20])
    assert known_folder(bank, REQUEST) is None


def test_weight_free_encoders_are_built_each_time(bank: Bank) -> None:
    request = FeatureRequest("classic:layout", "squash_16x16")
    open_folder(bank, request)
    assert known_folder(bank, request) is None
    assert not (bank.root / KNOWN_FEATURES_NAME).exists()


@needs_torch
def test_a_run_with_nothing_to_do_imports_no_network_library(
    bank: Bank, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{n}.png", n + 1.0) for n in range(3)]
    for n in range(3):
        write_image(tmp_path / f"{n}.png", seed=n)
    data = write_csv(tmp_path / "scores.csv", ["path", "mos"], rows)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["features", str(data), "--recipe", str(tmp_path / "recipe.toml"), "--bank", str(bank.root)]
    command += ["--workers", "1", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == 3
    code = (
        f"import sys; from featbank.cli import main; code = main({command!r}); "
        "print(sorted({'torch', 'timm', 'open_clip'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert (document["computed"], document["cached"]) == (0, 3)
    assert done.stderr.splitlines()[-1] == "[]"
