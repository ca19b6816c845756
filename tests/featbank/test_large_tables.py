"""Tables larger than the memory that a fit may take: the same numbers by blocks, kernels refused, memory bounded.

The slow test is the size that counts: a million images with 512 float16 columns, by the commands that a user types.
Set FEATBANK_LARGE_FOLDER to keep its figures, and its run, in a folder of that name.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbank.bank import Bank
from featbank.cli import main
from featbank.datasets import ImageTable, read_dataset
from featbank.recipes.reading import Recipe
from featbank.report.page import write_report
from featbank.runs import evaluate, model
from featbank.runs.fit import FitOptions, fit_run
from featbank.runs.model import load_run_model
from featbank.search.run import SearchOptions, search_run
from featbank.table import Band, build_table, resolve_band
from regressors import bands
from regressors.solvers import resources
from tests.support.imported_run import prepare
from tests.support.large_bank import BANDS, recipe, recipe_text, write_large

N_IMAGES, WIDTH = 10_000, 16

LIMIT_GB = 0.43
"""Between what 10,000 x 64 take by blocks (0.42) and in memory (0.45), the program's own 0.4 included."""


def import_all(folder: Path, files: list[Path]) -> None:
    for name, file in zip(BANDS, files, strict=True):
        assert main([*("bank", "import", str(folder / "scores.csv"), str(file), "--band", name),
                     *("--gmacs", "0", "--bank", str(folder / "bank"))]) == 0  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    import_all(folder, write_large(folder, N_IMAGES, WIDTH))
    (folder / "large.toml").write_text(recipe_text())
    (folder / "kernels.toml").write_text(recipe_text("rbf-svr"))
    return folder


def assert_close(found: Any, known: Any, where: str = "") -> None:
    """Nested JSON with equal words and numbers equal to 1e-8."""
    assert type(found) is type(known), where
    if isinstance(known, dict):
        assert list(found) == list(known), where
        for key in known:
            assert_close(found[key], known[key], f"{where}.{key}")
    elif isinstance(known, list):
        assert len(found) == len(known), where
        for place, (own, other) in enumerate(zip(found, known, strict=True)):
            assert_close(own, other, f"{where}[{place}]")
    elif isinstance(known, float):
        assert found == pytest.approx(known, abs=1e-8), where
    else:
        assert found == known, where


@pytest.mark.slow
def test_a_run_by_blocks_has_the_numbers_of_a_run_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "N_BOOTSTRAP", 10)
    monkeypatch.setattr(bands, "BLOCK_BYTES", 500_000)
    table, bank = read_dataset(folder / "scores.csv"), Bank(folder / "bank")
    assert {band.dtype for band in bank.features()} == {"float16"}
    metrics = {}
    for name, limit in (("memory", None), ("blocks", LIMIT_GB)):
        by_blocks = limit is not None
        metrics[name] = fit_run(
            table,
            recipe(),
            bank,
            folder / name,
            FitOptions(memory_limit_gb=limit, test_fraction=0.1, permutations=int(by_blocks)),
            write_report=(lambda folder: write_report(folder, into=folder)) if by_blocks else None,
        )
    metrics["memory"]["baselines"].pop("nearest_photo")  # too much for a table that is read by blocks
    shown = {name: {k: v for k, v in found.items() if k != "band_share"} for name, found in metrics.items()}
    assert_close(shown["blocks"], shown["memory"])
    frames = {name: pd.read_csv(folder / name / "predictions.csv") for name in metrics}
    pd.testing.assert_frame_equal(frames["blocks"], frames["memory"], rtol=0, atol=2e-8)
    scores = {name: pd.read_csv(folder / name / "cv_results.csv") for name in metrics}
    pd.testing.assert_frame_equal(scores["blocks"], scores["memory"], rtol=1e-8)
    receipts = {name: json.loads((folder / name / "receipt.json").read_text()) for name in metrics}
    assert receipts["blocks"]["chosen"] == receipts["memory"]["chosen"]
    assert receipts["memory"]["subsamples"] == {}
    assert receipts["blocks"]["subsamples"] == {"band_share": 1000, "duplicates": 500}
    assert any("read by blocks" in note for note in receipts["blocks"]["notes"])
    assert "read by blocks" in (folder / "blocks/report.html").read_text()
    models = {name: load_run_model(folder / name / "model.skops")[0] for name in metrics}
    rows = pd.DataFrame(
        np.random.default_rng(0).normal(size=(50, 4 * WIDTH)), columns=models["memory"].feature_names_in_
    )
    assert models["blocks"].predict(rows) == pytest.approx(models["memory"].predict(rows), abs=1e-8)


def test_kernels_without_room_are_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.perf_counter()
    command = [
        "fit",
        str(folder / "scores.csv"),
        "--recipe",
        str(folder / "kernels.toml"),
        "--memory-limit",
        "0.5",
    ]
    assert main([*command, "--bank", str(folder / "bank"), "--out", str(folder / "refused")]) == 1
    said = capsys.readouterr().err
    assert "rbf-svr on 8,000 training images needs kernels of 1.02 GB each, the limit is 0.5 GB" in said
    assert 'Use estimator = "ridge"' in said
    assert "Traceback" not in said
    assert not (folder / "refused").exists()
    assert time.perf_counter() - started < 60  # an SVR on them takes hours


def test_a_search_by_blocks_finds_what_a_search_in_memory_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, small, bank = prepare(tmp_path)
    options = SearchOptions(n_outer_folds=2)
    known = search_run(table, small, bank, tmp_path / "memory", options)
    monkeypatch.setattr(resources, "in_memory_gb", lambda n_rows, n_columns: 1e6)
    found = search_run(table, small, bank, tmp_path / "blocks", options, FitOptions(memory_limit_gb=100))
    assert json.loads((tmp_path / "blocks/receipt.json").read_text())["subsamples"]["band_share"] > 0
    assert_close(found["search"], known["search"])
    trials = [pd.read_csv(tmp_path / name / "trials.csv") for name in ("blocks", "memory")]
    pd.testing.assert_frame_equal(trials[0], trials[1], rtol=1e-8)
    runs = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("blocks", "memory")]
    pd.testing.assert_frame_equal(runs[0], runs[1], rtol=0, atol=1e-8)


def test_what_grows_with_the_rows_is_left_out_of_large_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, small, bank = prepare(tmp_path)
    monkeypatch.setattr(model, "MAX_KEPT_ROWS", 50)
    monkeypatch.setattr(evaluate, "MANY_ROWS", 20)
    monkeypatch.setattr(evaluate, "INTERVAL_ROWS", 15)
    metrics = fit_run(table, small, bank, tmp_path / "run", FitOptions(permutations=0))
    lean, _ = load_run_model(tmp_path / "run/model.skops")
    assert not {"folds_", "oof_predictions_"} & set(vars(lean))
    assert lean.cv == 5
    predictions = pd.read_csv(tmp_path / "run/predictions.csv", index_col="image")
    known = predictions["predicted"][predictions["split"] == "test"]
    X = build_table(table, bands_of(small, bank, table), bank, "").X.loc[known.index]
    assert lean.predict(X) == pytest.approx(known.to_numpy(), rel=1e-8)
    low, high = metrics["training_cv"]["ci95"]["srcc"]
    assert low < metrics["training_cv"]["srcc"] < high


def bands_of(small: Recipe, bank: Bank, table: ImageTable) -> list[Band]:
    return [resolve_band(bank, table, band.name, band.encoder) for band in small.bands]


FIT_MAPPED_FILE = """
import resource, sys
import numpy as np
from regressors import BandEnsemble
from regressors.bands import BlockTable
from tests.support.band_tables import ArraySource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
stored = np.load(sys.argv[1], mmap_mode="r")
columns = [f"{'abcd'[k // 32]}:{k % 32:04d}" for k in range(128)]
y = np.asarray(stored[:, :4], dtype=float).sum(axis=1)
small = BlockTable(ArraySource(np.array(stored[:2000]), columns))
BandEnsemble(alpha=[1.0, 100.0], n_jobs=1).fit(small, y[:2000])
before = peak()
BandEnsemble(alpha=[1.0, 100.0], n_jobs=1).fit(BlockTable(ArraySource(stored, columns)), y)
print(before, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_a_fit_by_blocks_never_holds_the_table(tmp_path: Path) -> None:
    n_rows = 250_000
    matrix = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float16, shape=(n_rows, 128))
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, 50_000):
        matrix[start : start + 50_000] = rng.normal(size=(50_000, 128))
    matrix.flush()
    done = subprocess.run(
        [sys.executable, "-c", FIT_MAPPED_FILE, str(tmp_path / "x.npy")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split())
    # The mapped file is 64 MB of this; one copy of the table in float64 would be 256.
    assert after - before < 230


def watch(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command; return seconds and the peaks of its memory, in units of 1e9 bytes."""
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peaks = {"RssAnon": 0.0, "RssFile": 0.0, "VmRSS": 0.0}
    with (folder / "said.txt").open("a") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "featbank", *command], cwd=folder, stdout=said, stderr=said,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        while process.poll() is None:
            time.sleep(0.1)
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            for line in status.splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) * 1024 / 1e9)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0, (folder / "said.txt").read_text()
    return {
        "wall_s": time.perf_counter() - started,
        "processor_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "ru_maxrss": after.ru_maxrss * 1024 / 1e9,  # of the largest command so far
        **peaks,
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of another process from /proc")
def test_a_million_images_are_fitted_within_four_gigabytes(tmp_path: Path) -> None:
    folder = Path(os.environ.get("FEATBANK_LARGE_FOLDER", tmp_path)).resolve()
    files = write_large(folder, 1_000_000, 128)
    (folder / "large.toml").write_text(recipe_text())
    figures: dict[str, Any] = {}
    for name, file in zip(BANDS, files, strict=True):
        command = ["bank", "import", "scores.csv", file.name, "--band", name, "--gmacs", "0"]
        figures[f"import {name}"] = watch(command, folder)
        file.unlink()
    command = ["fit", "scores.csv", "--recipe", "large.toml", "--out", "run", "--memory-limit", "4"]
    figures["fit"] = watch(command, folder)
    receipt = json.loads((folder / "run/receipt.json").read_text())
    figures["durations"] = receipt["durations"]
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    assert max(figures["fit"]["VmRSS"], figures["fit"]["ru_maxrss"]) < 4
    assert receipt["durations"]["table_s"] < 600
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["training_cv"]["n"] + metrics["test"]["n"] == 1_000_000
    assert metrics["test"]["srcc"] > 0.6
    assert (folder / "run/model.skops").stat().st_size < 2e6
    assert (folder / "run/report.html").stat().st_size < 5e6
