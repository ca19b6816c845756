"""Metrics by shared properties: a new metric goes into METRICS of the module and into the lists below."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from regressors.evaluation.metrics import (
    METRICS,
    SCORERS,
    apply_logistic4,
    evaluate,
    fit_logistic4,
    krcc,
    mae,
    make_metric_scorer,
    plcc,
    plcc_logistic,
    rmse,
    rmse_logistic,
    scores_of_rows,
    srcc,
)
from regressors.pipelines import SELECTIONS
from regressors.search import ECHO

CORRELATIONS = {"plcc", "srcc", "krcc"}
RANK = {"srcc", "krcc"}
ERRORS = {"mae", "rmse"}
SYMMETRIC = CORRELATIONS | ERRORS
IGNORES_INCREASING_MAPS = RANK
IGNORES_AFFINE_MAPS = CORRELATIONS | {"plcc_logistic"}
CHANGES_SIGN = CORRELATIONS
UNDEFINED_FOR_CONSTANTS = CORRELATIONS | {"plcc_logistic"}
NEEDS_TWO_ROWS = CORRELATIONS | {"plcc_logistic"}


def test_every_metric_is_in_a_list() -> None:
    assert CORRELATIONS | ERRORS | {"plcc_logistic"} == set(METRICS)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """MOS and prediction, with or without ties, on any scale."""
    n = draw(st.integers(6, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([3, 5, 0]))
    y, noise = rng.normal(size=n), rng.normal(size=n)
    if levels:
        y, noise = np.round(y * levels / 4), np.round(noise * levels / 4)
    y[:2] = [-1.0, 1.0]  # never constant
    y_pred = y * rng.uniform(-1, 2) + noise
    y_pred[:2] += [0.0, 0.5]
    scale, shift = 10.0 ** rng.integers(-3, 4), rng.normal()
    return y, scale * y_pred + shift


@pytest.mark.parametrize("name", sorted(METRICS))
@given(pair=pairs())
def test_bounds(name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    value = METRICS[name](*pair)
    low = -1.0 if name in CORRELATIONS else 0.0
    high = np.inf if name in ERRORS else 1.0
    assert np.isnan(value) or low <= value <= high


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
@given(pair=pairs())
def test_symmetry(name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert METRICS[name](*pair) == pytest.approx(METRICS[name](*pair[::-1]), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", sorted(CHANGES_SIGN))
@given(pair=pairs())
def test_sign_flip(name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    y, y_pred = pair
    assert METRICS[name](y, -y_pred) == pytest.approx(-METRICS[name](y, y_pred), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", sorted(IGNORES_INCREASING_MAPS))
@given(pair=pairs())
def test_increasing_maps_are_ignored(name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    y, y_pred = pair
    # Ranks are replaced by their cubes: increasing, strictly, whatever the scale.
    mapped = stats.rankdata(y_pred, method="dense") ** 3.0
    assert METRICS[name](y, mapped) == pytest.approx(METRICS[name](y, y_pred), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", sorted(IGNORES_AFFINE_MAPS))
@given(pair=pairs(), slope=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_positive_affine_maps_are_ignored(
    name: str, pair: tuple[np.ndarray, np.ndarray], slope: float, shift: float
) -> None:
    y, y_pred = pair
    tolerance = 1e-6 if name == "plcc_logistic" else 1e-9
    mapped = slope * (y_pred / np.abs(y_pred).max()) + shift
    assert METRICS[name](y, mapped) == pytest.approx(METRICS[name](y, y_pred), abs=tolerance, nan_ok=True)


@pytest.mark.parametrize("name", sorted(METRICS))
@given(pair=pairs(), seed=st.integers(0, 1000))
def test_row_order_is_irrelevant(name: str, pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    y, y_pred = pair
    order = np.random.default_rng(seed).permutation(len(y))
    assert METRICS[name](y[order], y_pred[order]) == pytest.approx(
        METRICS[name](y, y_pred), rel=_tolerance(name, 1e-8), nan_ok=True
    )


@pytest.mark.parametrize("name", sorted(METRICS))
@given(pair=pairs(), seed=st.integers(0, 1000))
def test_weights_are_repetitions(name: str, pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    y, y_pred = pair
    weights = np.random.default_rng(seed).integers(0, 4, size=len(y))
    weights[:2] = 1
    repeated = METRICS[name](np.repeat(y, weights), np.repeat(y_pred, weights))
    assert METRICS[name](y, y_pred, sample_weight=weights) == pytest.approx(
        repeated, rel=_tolerance(name, 1e-7), abs=1e-9, nan_ok=True
    )


def _tolerance(name: str, exact: float) -> float:
    # The search of the logistic map ends where a step gains little, which on a flat top is a little earlier or later.
    return 1e-6 if name == "plcc_logistic" else exact


@pytest.mark.parametrize("name", sorted(METRICS))
@given(pair=pairs())
def test_unit_weights_change_nothing(name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    value = METRICS[name](*pair, sample_weight=np.ones(len(pair[0])))
    assert value == pytest.approx(METRICS[name](*pair), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_input_is_left_as_it_was(name: str) -> None:
    y, y_pred = np.arange(8.0), np.arange(8.0)[::-1].copy()
    METRICS[name](y, y_pred, sample_weight=np.ones(8))
    assert y.tolist() == list(range(8))
    assert y_pred.tolist() == list(range(7, -1, -1))


@pytest.mark.parametrize("name", sorted(UNDEFINED_FOR_CONSTANTS))
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300])
def test_a_constant_is_nan_without_a_warning(name: str, constant: float) -> None:
    varied = np.arange(10.0)
    assert np.isnan(METRICS[name](varied, np.full(10, constant)))
    assert np.isnan(METRICS[name](np.full(10, constant), varied))


def test_two_rows_are_ranked_right_or_wrong() -> None:
    assert [krcc([0.2, 0.3], [1.0, 2.0]), krcc([0.2, 0.3], [2.0, 1.0])] == [1.0, -1.0]
    assert evaluate([0.2, 0.3], [1.0, 2.0])["srcc"] == pytest.approx(1.0)


def test_rounding_around_a_constant_is_no_correlation() -> None:
    y = np.arange(20.0)
    almost = 0.7 + np.spacing(0.7) * (np.arange(20) % 2)
    assert np.isnan(plcc(y, almost))


@pytest.mark.parametrize("name", sorted(ERRORS))
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_errors_are_exactly_zero_for_a_perfect_prediction(name: str, values: list[float]) -> None:
    assert METRICS[name](values, values) == 0.0


@given(pair=pairs())
def test_errors_scale_with_the_mos_scale(pair: tuple[np.ndarray, np.ndarray]) -> None:
    y, y_pred = pair
    for metric in (mae, rmse):
        assert metric(100 * y, 100 * y_pred) == pytest.approx(100 * metric(y, y_pred))


@given(pair=pairs())
def test_agreement_with_independent_implementations(pair: tuple[np.ndarray, np.ndarray]) -> None:
    y, y_pred = pair
    if np.ptp(y_pred) == 0:
        return
    assert srcc(y, y_pred) == pytest.approx(stats.spearmanr(y, y_pred).statistic, abs=1e-12)
    assert plcc(y, y_pred) == pytest.approx(stats.pearsonr(y, y_pred).statistic, abs=1e-12)
    assert mae(y, y_pred) == pytest.approx(mean_absolute_error(y, y_pred))
    assert rmse(y, y_pred) == pytest.approx(root_mean_squared_error(y, y_pred))
    assert krcc(y, y_pred) == pytest.approx(tau_b_by_pairs(y, y_pred), abs=1e-12)


def tau_b_by_pairs(y: np.ndarray, y_pred: np.ndarray) -> float:
    """Kendall's definition, pair by pair (Biometrika 1945)."""
    concordant = discordant = tied_y = tied_pred = 0
    for i in range(len(y)):
        for j in range(i):
            a, b = np.sign(y[i] - y[j]), np.sign(y_pred[i] - y_pred[j])
            concordant += a * b > 0
            discordant += a * b < 0
            tied_y += a == 0
            tied_pred += b == 0
    n_pairs = len(y) * (len(y) - 1) / 2
    return (concordant - discordant) / np.sqrt((n_pairs - tied_y) * (n_pairs - tied_pred))


def test_extreme_scales_neither_overflow_nor_vanish() -> None:
    y = np.array([1.0, 2.0, 4.0, 3.0, 7.0, 5.0])
    y_pred = y[::-1]
    for scale in (1e-200, 1e200):
        assert plcc(scale * y, scale * y_pred) == pytest.approx(plcc(y, y_pred))
        assert rmse(scale * y, scale * y_pred) == pytest.approx(scale * rmse(y, y_pred))


def test_what_no_float_can_hold_is_no_perfect_correlation() -> None:
    # The mean of these overflows: the answer is unknown, not 1.
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.isnan(plcc([1.7e308, 1.6e308, 1e308, 0.0], [1.0, 2.0, 3.0, 5.0]))


@given(pair=pairs())
def test_the_logistic_map_loses_no_correlation(pair: tuple[np.ndarray, np.ndarray]) -> None:
    y, y_pred = pair
    if len(np.unique(np.column_stack(pair), axis=0)) >= 5 and not np.isnan(plcc(y, y_pred)):
        assert plcc_logistic(y, y_pred) >= abs(plcc(y, y_pred)) - 1e-4


def test_rmse_after_the_map_follows_from_its_correlation() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    weights = rng.uniform(0.5, 2, size=60)
    for y_pred in (np.exp(y) + 0.3 * rng.normal(size=60), np.zeros(60), 1e3 * y):
        found = evaluate(y, y_pred, sample_weight=weights)["rmse_logistic"]
        assert found == pytest.approx(rmse_logistic(y, y_pred, sample_weight=weights), abs=1e-6)


def test_evaluate_gives_every_metric_and_the_number_of_rows() -> None:
    y = np.arange(10.0)
    values = evaluate(y, y + 0.5)
    assert list(values) == ["n", *METRICS, "rmse_logistic"]
    assert values["n"] == 10
    assert isinstance(values["n"], int)
    assert values["mae"] == 0.5
    assert values["srcc"] == 1.0


@pytest.mark.parametrize(
    ("y", "y_pred", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0], "one length, got 3 and 2"),
        ([1.0, np.nan], [1.0, 2.0], "finite, got 1 NaN"),
        ([1.0, 2.0], [1.0, np.inf], "y_pred must be finite"),
        ([[1.0], [2.0]], [1.0, 2.0], "one-dimensional"),
        (["a", "b"], [1.0, 2.0], "must hold numbers"),
        ([1.0], [1.0], "at least 2 rows"),
    ],
)
def test_inadmissible_input_is_refused(y: list, y_pred: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        srcc(y, y_pred)


@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0]])
def test_inadmissible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        srcc([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], sample_weight=weights)


def test_what_may_be_selected_by_are_the_scorers() -> None:
    assert tuple(SCORERS) == SELECTIONS


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scorers_follow_their_metric(name: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    y = X @ [1.0, 2.0, 3.0] + rng.normal(size=50)
    model = LinearRegression().fit(X, y)
    sign = -1 if name.startswith(tuple(ERRORS)) else 1
    weights = rng.integers(1, 4, size=50)

    def after_map(y: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        mapped = apply_logistic4(fit_logistic4(y, y_pred, sample_weight=sample_weight), y_pred)
        return float(np.sqrt(np.average((y - mapped) ** 2, weights=sample_weight)))

    metric = {**METRICS, "r2": r2_score, "rmse_logistic": after_map}[name]
    assert SCORERS[name](model, X, y) == pytest.approx(sign * metric(y, model.predict(X)), abs=1e-11)
    assert SCORERS[name](model, X, y, sample_weight=weights) == pytest.approx(
        sign * metric(y, model.predict(X), sample_weight=weights), abs=1e-11
    )
    constant = SCORERS[name](DummyRegressor().fit(X, y), X, y)
    assert constant == pytest.approx(-np.std(y) if name == "rmse_logistic" else constant)


@pytest.mark.parametrize("name", sorted(CORRELATIONS))
def test_a_constant_candidate_scores_zero_and_a_constant_fold_is_an_error(name: str) -> None:
    X, y = np.zeros((10, 1)), np.arange(10.0)
    model = DummyRegressor().fit(X, y)
    assert SCORERS[name](model, X, y) == 0.0
    with pytest.raises(ValueError, match="all have one MOS"):
        SCORERS[name](model, X, np.ones(10))


def test_scorers_are_fresh_and_known_by_name() -> None:
    assert make_metric_scorer("srcc") is not make_metric_scorer("srcc")
    with pytest.raises(ValueError, match="Did you mean 'srcc'"):
        make_metric_scorer("srocc")


def test_many_predictions_are_scored_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    y = np.round(rng.normal(size=40), 1)
    predictions = np.vstack(
        [
            y + rng.normal(size=(20, 40)),
            np.round(y + rng.normal(size=(5, 40)), 1),
            np.round(y + rng.normal(size=40), 1)[None] * (1 + 1e-15 * rng.normal(size=(3, 40))),
            np.zeros((1, 40)),
            np.full((1, 40), 3.0),
            1e-200 * y[None],
            -y[None],
        ]
    )
    for scorer in (SCORERS["srcc"], clone(SCORERS["srcc"], safe=False)):
        found = scores_of_rows(scorer, y, predictions)
        assert found is not None
        assert found.tolist() == [float(scorer(ECHO, row, y)) for row in predictions]
    assert scores_of_rows(SCORERS["plcc"], y, predictions) is None
    assert scores_of_rows(SCORERS["srcc"], np.ones(40), predictions) is None
