"""The benchmarks on toy sizes: both sides run, and agree where they must; speed is no matter here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks import extraction, fit, networks, trust
from regressors.ensemble import BandEnsemble
from regressors.folds import make_folds
from tests.support.datasets import write_image

pytestmark = pytest.mark.slow


def test_both_sides_of_a_comparison_agree() -> None:
    rate = fit.gemm_rate()
    assert rate > 1e8
    rows = [
        fit._ridge_row(60, 24, 2, rate),
        fit._ridge_row(40, 90, 2, rate, n_measured=2),
        fit._subsets_row(60, 24, 2, rate),
        fit._svr_row(60, 24),
        fit._svr_row(60, 24, n_measured=1),
    ]
    for row in rows:
        assert row["score_difference"] < 1e-8, row["what"]
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
    assert rows[1]["measured"] == "2 of 5 folds, and the refit"


def test_the_simulated_fit_scores_as_the_real_one() -> None:
    X, y, groups, members = trust.clean_data("ensemble", np.random.default_rng(0))
    folds = make_folds(y, groups)
    names = [f"{'abcde'[column % 5]}:{column:04d}" for column in range(X.shape[1])]
    real = BandEnsemble("all+leave-one-out", alpha=trust.ALPHAS, cv=folds).fit(
        pd.DataFrame(X, columns=names), y
    )
    _, scores = trust.ridge_scores(X, folds, members)(y)
    expected = real.cv_results_.filter(regex=r"^split\d").to_numpy()
    assert np.allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["noise", "grouped", "small", "two values", "copies"])
def test_clean_data_is_not_accused_by_the_control(kind: str) -> None:
    row = trust.simulate_control(kind, 200)
    assert row["found"] == 0
    assert row["largest_sigma"] > 1  # the bound is no idle one


def test_planted_leaks_are_found() -> None:
    rows = [trust.simulate_control("wide", 20, choose=20), *trust.simulate_leaks(100)]
    assert min(row["share"] for row in rows) >= 0.95


@pytest.mark.parametrize(
    ("sizes", "least"), [((16, 30, 0.5), 0.85), ((16, 30, 0.0), 0.92), ((300, 1, 0.0), 0.92)]
)
def test_intervals_hold_what_they_should(sizes: tuple[int, int, float], least: float) -> None:
    # Chance alone moves the share over 200 runs by up to .045.
    for row in trust.simulate_coverage(*sizes, 200):
        assert least - 0.02 <= row["share"] <= 0.99, row["what"]


def test_himalaya_finds_about_the_same_where_it_is_installed() -> None:
    pytest.importorskip("himalaya")
    for row in fit._himalaya_rows(300, 24, n_candidates=2):
        assert row["score_difference"] < 0.05, row["baseline"]


def test_views_give_rows_of_the_same_form(tmp_path: Path) -> None:
    paths = [str(write_image(tmp_path / f"{n}.jpg", seed=n, size=(1300, 800))) for n in range(2)]
    rows = extraction.bench_views(paths, repeats=1)
    assert rows
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])


def test_every_engine_is_set_against_the_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(networks, "SETS", {"ResNet-50": 1})
    path = str(write_image(tmp_path / "photo.jpg", seed=0, size=(1300, 800)))
    rows = networks.bench_networks([path], repeats=1)
    ways = [way for way in ("torch fp32", "torch bf16") if any(way in row["what"] for row in rows)]
    assert ways == ["torch fp32", "torch bf16"]
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
        # Nothing is faster than the limit; the smallest job comes nowhere near it.
        assert 0 < row["share"] < 1.2
        assert row["peak_gb"] > 0.1


def test_costs_are_recorded_rates_times_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_HERE", tmp_path)
    (tmp_path / "results.csv").write_text(
        'what,seconds\n"decode 20 photos, digest and checks included",1.8\n"bank write 6144 x 2048",3\n'
    )
    (tmp_path / "networks.csv").write_text(
        "what,seconds\n" + '"four encoders, 10 photos, torch fp32",36\n' * 2
    )
    table = extraction.cost_table()
    assert table.loc["core-hours: four encoders, torch fp32", "a million photos"] == pytest.approx(1000)
    assert table.loc["core-hours: decode, digest and checks included", "a billion photos"] == pytest.approx(
        25000
    )
    assert sum("core-hours" in row for row in table.index) == 2
