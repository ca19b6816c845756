"""Simulations behind the alarms and intervals of a run: clean data accused, leaks found, intervals that hold the truth.

Run by ``python -m experiments.benchmarks --part trust [--runs N]``; recorded in ``trust.csv``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from featbank.runs.trust import ALARM, check_groups
from regressors.checks import FloatArray
from regressors.evaluation.controls import find_leaking_columns, find_near_duplicates, permutation_control
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import METRICS
from regressors.folds import Fold, make_folds

ALPHAS: Final = np.logspace(-6, 6, 13)
N_SHUFFLES: Final = 5

Data = tuple[FloatArray, FloatArray, np.ndarray, list[np.ndarray]]
"""Features, MOS, group of each row, and the columns of each member."""


def ridge_scores(
    X: FloatArray, folds: list[Fold], members: list[np.ndarray], *, choose: int = 0
) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
    """Give the fit that `permutation_control` asks for: ridges on standardised columns, 13 penalties, some members.

    Parameters
    ----------
    X : float array of shape (n_rows, n_features)
    folds : list of (train, test)
    members : list of int array
        Columns of each.
    choose : int
        A leak: so many columns are taken, chosen by their correlation with MOS on all rows; 0 takes all.
    """

    def decompose(columns: np.ndarray) -> list[FloatArray]:
        parts = []
        for train, test in folds:
            Z = X[:, columns]
            scale = Z[train].std(axis=0)
            Z = (Z - Z[train].mean(axis=0)) / np.where(scale > 0, scale, 1.0)
            U, s, Vt = np.linalg.svd(Z[train], full_matrices=False)
            # (n_alphas, n_test, n_train): predictions are this times the centred MOS.
            shrunk = s / (s**2 + ALPHAS[:, None])
            parts.append(np.einsum("ij,aj,kj->aik", Z[test] @ Vt.T, shrunk, U))
        return parts

    known = [] if choose else [decompose(columns) for columns in members]

    def fit(y: FloatArray) -> tuple[FloatArray, FloatArray]:
        strongest = np.argsort(-np.abs((X - X.mean(axis=0)).T @ (y - y.mean())) / X.std(axis=0))[:choose]
        held_out, scores = np.zeros(len(y)), []
        for parts in known or [decompose(strongest)]:
            row = []
            for (train, test), hat in zip(folds, parts, strict=True):
                predicted = hat @ (y[train] - y[train].mean())  # (n_alphas, n_test)
                held_out[test] += predicted[len(ALPHAS) // 2]
                row.append(_rank_correlations(predicted, y[test]))
            scores.append(np.column_stack(row))
        return held_out, np.concatenate(scores)

    return fit


def _rank_correlations(predicted: FloatArray, y: FloatArray) -> FloatArray:
    # Rounded as the scorer of a grid search does, so that copies tie.
    size = np.abs(predicted).max(axis=1, keepdims=True)
    ranks = rankdata(np.round(predicted / np.where(size > 0, size, 1.0), 12), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    target = rankdata(y) - (len(y) + 1) / 2
    norms = np.sqrt((ranks**2).sum(axis=1) * (target @ target))
    return np.divide(ranks @ target, norms, out=np.zeros(len(ranks)), where=norms > 0)


def clean_data(kind: str, rng: np.random.Generator) -> Data:
    """Draw data of one kind without any leak."""
    n = int(rng.integers(20, 61)) if kind == "small" else 120
    n_columns = {"ensemble": 60, "wide": 300}.get(kind, 40)
    groups = np.arange(n)
    # Columns of real features are correlated: a few directions carry most of the variance.
    X = rng.normal(size=(n, n_columns)) @ (
        rng.normal(size=(n_columns, n_columns)) / np.arange(1, n_columns + 1)
    )
    y = X[:, :3].sum(axis=1) / X[:, :3].sum(axis=1).std() + rng.normal(size=n)
    if kind in ("noise", "wide"):
        X, y = rng.normal(size=X.shape), rng.normal(size=n)
    elif kind == "grouped":
        groups = np.sort(rng.integers(0, 24, size=n))
        X = X + 3 * rng.normal(size=(24, n_columns))[groups]
        y = y + 1.5 * rng.normal(size=24)[groups]
    elif kind == "two values":
        y = (y > np.median(y)).astype(np.float64)
    elif kind == "copies":
        X, y = np.tile(X[:60], (2, 1)), np.tile(y[:60], 2) + 0.1 * rng.normal(size=n)
    bands = np.arange(n_columns) % 5
    columns = np.arange(n_columns)
    leave_one_out = [columns] + [columns[bands != band] for band in range(5)]
    return X, y, groups, leave_one_out if kind == "ensemble" else [columns]


def simulate_control(kind: str, n_runs: int, *, choose: int = 0) -> dict[str, Any]:
    """Count alarms of the permutation control over many data sets of one kind."""
    alarms, largest = 0, 0.0
    for seed in range(n_runs):
        rng = np.random.default_rng([seed, len(kind)])
        X, y, groups, members = clean_data(kind, rng)
        folds = make_folds(y, groups, random_state=seed)
        control = permutation_control(
            ridge_scores(X, folds, members, choose=choose), y, folds,
            held_out=y, n_permutations=N_SHUFFLES, random_state=seed,
        )  # fmt: skip
        if control is not None:
            alarms += control.is_leaking
            largest = max(largest, float(control.unchosen.mean()) / control.standard_error)
    what = f"permutation control, {kind}" + (", columns chosen on all rows" if choose else "")
    return {"what": what, "runs": n_runs, "found": alarms, "share": alarms / n_runs, "largest_sigma": largest}


def simulate_leaks(n_runs: int) -> list[dict[str, Any]]:
    """Plant a column, a shared group and copies of photos, and count the alarms."""
    found = {
        "leak: a column that knows the MOS": 0,
        "leak: a group on both sides": 0,
        "leak: copies of photos": 0,
    }
    column, group, copies = found
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        X, y, _, _ = clean_data("grouped", rng)
        knowing = X.copy()
        knowing[:, 7] = np.exp(y / 3) + 0.02 * rng.normal(size=len(y))
        found[column] += bool(find_leaking_columns(knowing, y))
        rows = pd.DataFrame({"mos": y, "group": rng.permutation(len(y)), "split": "test"})
        rows.loc[100, "group"] = rows["group"][0]
        found[group] += check_groups(rows[:96], rows[96:], y[96:]).level == ALARM
        judged = X[96:].copy()
        judged[:3] = X[:3]
        found[copies] += bool(len(find_near_duplicates(judged, X[:96]).rows))
    return [{"what": what, "runs": n_runs, "found": n, "share": n / n_runs} for what, n in found.items()]


def simulate_coverage(n_groups: int, n_images: int, share: float, n_runs: int) -> list[dict[str, Any]]:
    """Count how often the interval of 95 % holds the metric of a population of groups of images.

    ``share`` of the variance of MOS and of the errors belongs to the group; 0 for independent images.
    """

    def draw(rng: np.random.Generator, n_drawn: int, size: int) -> tuple[FloatArray, FloatArray, np.ndarray]:
        group = np.repeat(np.arange(n_drawn), size)
        y, error = (
            np.sqrt(share) * rng.normal(size=n_drawn)[group]
            + np.sqrt(1 - share) * rng.normal(size=len(group))
            for _ in range(2)
        )
        return y, 0.6 * y + 0.5 * error, group

    names = ("srcc", "plcc", "mae", "rmse")
    population = draw(np.random.default_rng(99), 6000, 30)
    truth = {name: METRICS[name](*population[:2]) for name in names}
    held = dict.fromkeys(names, 0)
    for seed in range(n_runs):
        y, predicted, group = draw(np.random.default_rng(seed), n_groups, n_images)
        for name, (low, high) in bootstrap_ci(y, predicted, groups=group, metrics=names).items():
            held[name] += low <= truth[name] <= high
    what = f"interval of 95 %, {n_groups} groups of {n_images}, {share:.0%} of the variance between groups"
    return [
        {"what": f"{what}: {k}", "runs": n_runs, "found": n, "share": n / n_runs} for k, n in held.items()
    ]


def bench_trust(n_runs: int) -> list[dict[str, Any]]:
    """Run all simulations; a tenth as many leaks, and a fifth as many intervals."""
    kinds = ("noise", "grouped", "small", "two values", "copies", "ensemble")
    rows = [simulate_control(kind, n_runs) for kind in kinds]
    rows.append(simulate_control("wide", max(n_runs // 10, 1), choose=20))
    rows += simulate_leaks(max(n_runs // 10, 1))
    for n_groups, n_images, share in ((16, 30, 0.5), (16, 30, 0.0), (300, 1, 0.0)):
        rows += simulate_coverage(n_groups, n_images, share, max(n_runs // 5, 1))
    return rows
