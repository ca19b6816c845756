"""The benchmarks on toy sizes: both sides run, and agree where they must; speed is no matter here."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import fit, views
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
    assert rows[1]["measured"] == "8 of 195 fits, and the refit"


def test_himalaya_finds_about_the_same_where_it_is_installed() -> None:
    pytest.importorskip("himalaya")
    for row in fit._himalaya_rows(300, 24, n_candidates=2):
        assert row["score_difference"] < 0.05, row["baseline"]


def test_views_and_reruns_give_rows_of_the_same_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "N_FILES", 5)
    paths = [str(write_image(tmp_path / f"{n}.jpg", seed=n, size=(1300, 800))) for n in range(2)]
    rows = [*views.bench_views(paths, repeats=1), *views.bench_rerun(tmp_path, repeats=1)]
    assert len(rows) >= 2
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
