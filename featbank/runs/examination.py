"""Runs the trust checks of one run, in the order of its report; the checks are those of `featbank.runs.trust`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.recipes.reading import RegressionRequest
from featbank.runs.consistency import disagreements
from featbank.runs.folder import TRUST, write_json
from featbank.runs.model import build_ensemble
from featbank.runs.reading import read_run
from featbank.runs.trust import (
    Finding,
    check_agreement,
    check_columns,
    check_control,
    check_coverage,
    check_duplicates,
    check_groups,
    check_range,
    check_scale,
    check_skill,
    is_off_scale,
)
from regressors.blocks import BlockTable, take_columns
from regressors.checks import Table
from regressors.ensemble import NoSkillWarning
from regressors.evaluation.permutation import PermutationControl, permutation_control
from regressors.fitting import take_rows
from regressors.folds import Fold
from regressors.novelty import find_extreme_columns

FEW_ROWS: Final = 500
"""Training images up to which one shuffle says little: its standard error is one over the root of their number."""

LARGE_WORK: Final = 1e10
"""Multiplications of one kernel (rows x rows x columns) from which a fit takes more than a few seconds."""

CONTROL_SEED: Final = 0

MAX_EXPLAINED: Final = 5000
"""Predictions off the scale whose columns are looked at."""

CORRELATIONS: Final = ("srcc", "plcc", "krcc")


@dataclass(frozen=True)
class Training:
    """What a fit saw and gave on the training rows.

    Attributes
    ----------
    X : DataFrame or BlockTable of shape (n_rows, n_features)
    rows : DataFrame
        Same index; ``group``.
    y, held_out : float arrays of shape (n_rows,)
        MOS and out-of-fold predictions.
    folds : list of (train, test)
    """

    X: Table
    rows: pd.DataFrame
    y: NDArray[np.float64]
    held_out: NDArray[np.float64]
    folds: list[Fold]


def choose_permutations(request: RegressionRequest, n_rows: int, n_columns: int) -> int:
    """Choose how many shuffles the control makes: five of a small problem, one of a large one.

    A shuffle of many rows is as telling as several of few, and costs as much as the fit itself. Decided by the size
    of the problem and not by a clock, so that a run is the same on every machine.

    Parameters
    ----------
    request : RegressionRequest
    n_rows, n_columns : int
        Of the training table.
    """
    if request.estimator.endswith("svr"):
        return 3 if n_rows <= FEW_ROWS else 1
    if n_rows <= FEW_ROWS:
        return 5
    return 3 if float(n_rows) ** 2 * n_columns <= LARGE_WORK else 1


def run_control(
    request: RegressionRequest,
    training: Training,
    n_permutations: int,
    *,
    workers: int | None,
    n_crops: int = 1,
) -> PermutationControl | None:
    """Fit the recipe again on shuffled MOS: search, members, combination, on the same folds.

    Parameters
    ----------
    request : RegressionRequest
    training : Training
    n_permutations : int
        0 skips the control.
    workers : int or None
    n_crops : int
        As in `featbank.runs.model.build_ensemble`.

    Returns
    -------
    PermutationControl or None
        None also where MOS of few values cannot be shuffled over these folds.
    """
    if n_permutations == 0 or min(len(test) for _, test in training.folds) < 2:
        return None
    if request.select_by not in CORRELATIONS:  # the candidates' scores are to be correlations
        request = replace(request, select_by="srcc")

    def fit(y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        ensemble = build_ensemble(request, training.folds, workers, n_crops=n_crops)
        with warnings.catch_warnings():
            # That nothing is learned from shuffled MOS is what should happen.
            warnings.simplefilter("ignore", NoSkillWarning)
            ensemble.fit(training.X, y)
        scores = ensemble.cv_results_.filter(regex=r"^split\d+_test_score$").to_numpy(dtype=np.float64)
        return ensemble.oof_predictions_, scores

    return permutation_control(
        fit,
        training.y,
        training.folds,
        held_out=training.held_out,
        n_permutations=n_permutations,
        random_state=CONTROL_SEED,
    )


def examine(
    training: Training,
    X_judged: Table,
    judged: pd.DataFrame,
    predicted: NDArray[np.float64],
    metrics: Mapping[str, Any],
    control: PermutationControl | None,
    *,
    is_official_split: bool,
    predict: Callable[[pd.DataFrame], NDArray[np.float64]],
) -> list[Finding]:
    """Run every check that needs the features.

    Parameters
    ----------
    training : Training
    X_judged : DataFrame or BlockTable
    judged : DataFrame
        Features and rows of the judged images, after the seal was broken.
    predicted : float array of shape (n_judged,)
    metrics : mapping
        Content of ``metrics.json``.
    control : PermutationControl or None
    is_official_split : bool
        Whether a published dataset made the split.
    predict : callable
        The fitted model, to see what columns a prediction far off the scale comes from.

    Returns
    -------
    list of Finding
    """
    findings = [check_columns(training.X, training.y, training.held_out)]
    if len(judged):
        findings += [
            check_duplicates(X_judged, training.X),
            check_groups(training.rows, judged, predicted, is_official=is_official_split),
            check_skill(metrics),
            check_range(judged, predicted),
            check_coverage(metrics.get("intervals", {})),
        ]
    scale = check_scale(
        training.y, training.held_out, predicted, *_explain_scale(training, X_judged, predicted, predict)
    )
    return [*findings, scale, check_control(control)]


def _explain_scale(
    training: Training,
    X_judged: Table,
    predicted: NDArray[np.float64],
    predict: Callable[[pd.DataFrame], NDArray[np.float64]],
) -> tuple[dict[str, float], int, int]:
    """Return the extreme columns of rows predicted off the scale; how many judged ones they explain, of how many."""
    columns: dict[str, float] = {}
    n_cured = 0
    judged = np.flatnonzero(is_off_scale(training.y, predicted))[:MAX_EXPLAINED]
    if len(judged):
        rows = _frame(take_rows(X_judged, judged)).copy()
        columns |= find_extreme_columns(training.X, rows)
        rows[list(columns)] = _frame(take_columns(training.X, list(columns))).mean().to_numpy()
        n_cured = int((~is_off_scale(training.y, predict(rows))).sum())
    for train, test in training.folds:
        far = test[is_off_scale(training.y, training.held_out[test])][:MAX_EXPLAINED]
        if len(far):
            found = find_extreme_columns(take_rows(training.X, train), _frame(take_rows(training.X, far)))
            columns |= {name: max(size, columns.get(name, 0.0)) for name, size in found.items()}
    return dict(sorted(columns.items(), key=lambda item: -item[1])), n_cured, len(judged)


def _frame(X: Table) -> pd.DataFrame:
    return X.frame() if isinstance(X, BlockTable) else X


def write_trust(folder: Path, findings: list[Finding]) -> list[Finding]:
    """Check that the written metrics follow from the written predictions, and write ``trust.json``.

    Parameters
    ----------
    folder : Path
        Run folder with metrics, predictions and receipt.
    findings : list of Finding

    Returns
    -------
    list of Finding
        All of them, the last check included.
    """
    every = [*findings, check_agreement(disagreements(read_run(folder)))]
    write_json(folder / TRUST, {"findings": [finding.as_json() for finding in every]})
    return every
