"""The permutation control finds a pipeline that leaks and lets an honest one pass."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from regressors.evaluation.controls import fold_srcc, permutation_control
from regressors.evaluation.metrics import srcc
from regressors.folds import make_folds

N_ROWS = 120


def folds_of(y: np.ndarray) -> list:
    return make_folds(y, kind="kfold", n_splits=5)


def honest_fit(X: np.ndarray, folds: list, n_chosen: int | None = None, leak: bool = False):
    """A ridge on the best columns, chosen inside each fold, or, with the leak, on all rows beforehand."""

    def best(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
        strength = np.abs((X[rows] - X[rows].mean(0)).T @ (y[rows] - y[rows].mean()))
        return np.argsort(-strength)[: n_chosen or X.shape[1]]

    def fit(y: np.ndarray) -> np.ndarray:
        held_out = np.empty(len(y))
        chosen = best(np.arange(len(y)), y)
        for train, test in folds:
            columns = chosen if leak else best(train, y)
            held_out[test] = (
                Ridge(1.0).fit(X[np.ix_(train, columns)], y[train]).predict(X[np.ix_(test, columns)])
            )
        return held_out, [[srcc(y[test], held_out[test]) for _, test in folds]]

    return fit


def make(seed: int, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray, list]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N_ROWS, 500))
    y = signal * X[:, :5].sum(axis=1) + rng.normal(size=N_ROWS)
    return X, y, folds_of(y)


def test_columns_chosen_on_all_rows_are_a_leak_that_shuffles_show() -> None:
    X, y, folds = make(0)
    leaking = permutation_control(honest_fit(X, folds, 20, leak=True), y, folds, n_permutations=5)
    assert leaking.is_leaking
    assert leaking.mean > 0.5  # from shuffled MOS, where there is nothing to know
    assert not permutation_control(honest_fit(X, folds, 20), y, folds, n_permutations=5).is_leaking


def test_rows_that_stand_on_both_sides_of_the_folds_are_found() -> None:
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(40, 30))
    X = np.repeat(photos, 4, axis=0) + 0.05 * rng.normal(size=(160, 30))
    y = np.repeat(rng.normal(size=40), 4)
    order = rng.permutation(160)
    X, y = X[order], y[order]
    image = np.repeat(np.arange(40), 4)[order]

    def shuffled_by_image(fit, folds):
        # The crops of one image share its MOS, shuffled or not.
        scores = []
        for k in range(5):
            permuted = np.random.default_rng(k).permutation(40).astype(float)[image]
            scores.append(fold_srcc(permuted, fit(permuted)[0], folds))
        return np.mean(scores)

    split = make_folds(y, kind="kfold", n_splits=5)
    together = make_folds(y, image, kind="grouped", n_splits=5)
    assert shuffled_by_image(honest_fit(X, split), split) > 0.5
    assert abs(shuffled_by_image(honest_fit(X, together), together)) < 0.2


def test_an_honest_fit_raises_no_alarm_in_20_seeds() -> None:
    for seed in range(20):
        X, y, folds = make(seed, signal=seed % 2)
        control = permutation_control(
            honest_fit(X[:, :40], folds), y, folds, n_permutations=3, random_state=seed
        )
        assert not control.is_leaking
        if seed % 2:
            assert control.n_above == 0


def test_the_stated_error_is_the_spread_of_shuffles() -> None:
    X, y, folds = make(1)
    control = permutation_control(honest_fit(X[:, :5], folds), y, folds, n_permutations=60)
    # An upper bound: how dependent the scores of the folds are, is the kernel's business.
    assert 0.5 < np.std(control.unchosen) / (control.standard_error * np.sqrt(60)) < 1.15
    assert abs(control.unchosen.mean()) < 3.3 * control.standard_error


def test_the_best_of_many_chance_scores_is_no_leak() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    folds = folds_of(y)

    def choose(target: np.ndarray):
        # 200 candidates that know nothing; the one that suits these very folds is kept.
        candidates = rng.normal(size=(200, 60))
        scores = np.array([[srcc(target[test], row[test]) for _, test in folds] for row in candidates])
        return candidates[scores.mean(axis=1).argmax()], scores

    control = permutation_control(choose, y, folds, n_permutations=3)
    assert control.mean > 0.3
    assert not control.is_leaking


def test_mos_of_two_values_are_shuffled_over_folds_that_can_rank_them() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    y = np.repeat([0.0, 1.0], [16, 4])
    folds = folds_of(y)
    seen = []

    def fit(target: np.ndarray):
        seen.append([len(set(target[test])) for _, test in folds])
        return honest_fit(X, folds)(target)

    assert permutation_control(fit, np.repeat([0.0, 1.0], [10, 10]), folds, n_permutations=5) is not None
    assert set(np.ravel(seen[1:])) == {2}
    assert permutation_control(fit, y, folds, held_out=y, n_permutations=1) is None  # four ones in five folds


def test_constant_predictions_rank_nothing() -> None:
    y = np.random.default_rng(0).normal(size=40)
    folds = folds_of(y)
    held_out = np.empty(40)
    for train, test in folds:
        held_out[test] = y[train].mean()  # joined over folds, this would correlate negatively
    assert fold_srcc(y, held_out, folds) == 0.0
    assert fold_srcc(y, y, folds) == 1.0


def test_the_known_predictions_are_not_made_again() -> None:
    X, y, folds = make(0)
    fit = honest_fit(X[:, :10], folds)
    calls = []

    def counting(target: np.ndarray):
        calls.append(target)
        return fit(target)

    given = permutation_control(counting, y, folds, held_out=fit(y)[0], n_permutations=2)
    assert len(calls) == 2
    assert given.score == permutation_control(fit, y, folds, n_permutations=1).score
    assert sorted(calls[0]) == sorted(y)
    assert permutation_control(fit, y, folds, n_permutations=1).spread == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        permutation_control(fit, y, folds, n_permutations=0)
