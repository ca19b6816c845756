"""Paired comparisons: uniform p on noise, closed forms, invariances, and what is refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, ttest_rel

from regressors.evaluation.comparison import closest_shares, compare_paired, holm, subset_drop
from regressors.evaluation.metrics import METRICS, srcc

N_NULLS = 150


def two_equals(rng: np.random.Generator, n: int, signal: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """MOS and two predictors of equal quality that share most of their errors."""
    y, shared = rng.normal(size=n), rng.normal(size=n)
    return y, {name: signal * y + shared + 0.6 * rng.normal(size=n) for name in ("a", "b")}


@pytest.mark.parametrize("metric", ["srcc", "mae"])
@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_p_is_uniform_where_there_is_no_difference(metric: str, signal: float) -> None:
    rng = np.random.default_rng(1)
    p = [
        compare_paired(*two_equals(rng, 120, signal), metrics=[metric], n_resamples=400, random_state=k)["p"][
            0
        ]
        for k in range(N_NULLS)
    ]
    assert kstest(p, "uniform").pvalue > 0.01
    # Of 150 true nulls, 7.5 are expected below 5 %; 17 or more would come about once in a thousand times.
    assert np.less(p, 0.05).sum() < 17


def test_p_agrees_with_the_paired_t_test_on_errors() -> None:
    # The difference of two MAE is a mean of paired differences, where the t test is the known answer.
    rng = np.random.default_rng(0)
    y, predictions = two_equals(rng, 400, 1.0)
    predictions["b"] = predictions["b"] + 0.08 * rng.normal(size=400)
    row = compare_paired(y, predictions, metrics=["mae"], n_resamples=20_000).iloc[0]
    reference = ttest_rel(np.abs(y - predictions["a"]), np.abs(y - predictions["b"]))
    assert row["p"] == pytest.approx(reference.pvalue, abs=0.02)
    assert [row["low"], row["high"]] == pytest.approx(list(reference.confidence_interval()), abs=0.003)


def test_values_are_the_metrics_and_signs_follow_the_order() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=80)
    predictions = {
        name: y + rng.normal(scale=scale, size=80) for name, scale in (("a", 0.5), ("b", 2.0), ("c", 1.0))
    }
    table = compare_paired(y, predictions, n_resamples=300)
    assert list(zip(table["first"], table["second"], strict=True))[:3] == list(combinations("abc", 2))
    for row in table.to_dict("records"):
        assert row["first_value"] == pytest.approx(METRICS[row["metric"]](y, predictions[row["first"]]))
        assert row["difference"] == pytest.approx(row["first_value"] - row["second_value"])
        assert row["low"] <= row["difference"] <= row["high"]
    swapped = compare_paired(y, dict(reversed(predictions.items())), n_resamples=300)
    forward, backward = (t.set_index(["metric", "first", "second"])["difference"] for t in (table, swapped))
    assert forward["srcc", "a", "b"] == pytest.approx(-backward["srcc", "b", "a"])
    better = table.set_index(["metric", "first", "second"])["better"]
    assert better["srcc", "a", "b"] == better["mae", "a", "b"] == "a"


def test_a_predictor_against_itself_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    table = compare_paired(y, {"a": y + 1, "b": y + 1}, n_resamples=100)
    assert (table["p"] == 1).all()
    assert (table["better"] == "").all()
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)


def test_a_constant_has_no_correlation_and_does_not_count() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    table = compare_paired(
        y, {"a": y + rng.normal(size=60), "flat": np.zeros(60), "b": y + rng.normal(size=60)}, n_resamples=200
    ).set_index(["metric", "first", "second"])
    assert np.isnan(table.loc[("srcc", "a", "flat"), "p_holm"])
    assert table.loc[("srcc", "a", "flat"), "better"] == ""
    assert table.loc[("srcc", "a", "b"), "p_holm"] == table.loc[("srcc", "a", "b"), "p"]
    assert np.isfinite(table.loc[("mae", "a", "flat"), "p"])


def test_groups_that_repeat_images_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    y, predictions = two_equals(rng, 60, 1.0)
    index = np.repeat(np.arange(60), 5)
    repeated = {name: values[index] for name, values in predictions.items()}
    naive = compare_paired(y[index], repeated, metrics=["srcc"], n_resamples=800).iloc[0]
    grouped = compare_paired(y[index], repeated, metrics=["srcc"], groups=index, n_resamples=800).iloc[0]
    assert grouped["high"] - grouped["low"] > 1.8 * (naive["high"] - naive["low"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    # A hypothesis is rejected when every intersection that contains it is: the largest p among those.
    n = len(p)
    expected = [
        max(
            min(1.0, len(others) * min(p[j] for j in others))
            for size in range(1, n + 1)
            for others in combinations(range(n), size)
            if i in others
        )
        for i in range(n)
    ]
    assert holm(p) == pytest.approx(expected)


def test_holm_passes_over_what_could_not_be_compared() -> None:
    assert np.isnan(holm([np.nan, 0.01])[0])
    assert holm([np.nan, 0.01])[1] == 0.01
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        holm([1.5])


def test_a_drop_is_the_difference_of_two_correlations() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=400)
    inside = np.arange(400) % 3 == 0
    predicted = y + np.where(inside, 2.0, 0.3) * rng.normal(size=400)
    drop = subset_drop(y, predicted, inside, n_resamples=500)
    assert drop["drop"] == pytest.approx(srcc(y, predicted) - srcc(y[inside], predicted[inside]))
    assert 0 < drop["low"] < drop["drop"] < drop["high"]
    alike = subset_drop(y, y + rng.normal(size=400), inside, n_resamples=500)
    assert alike["low"] < 0 < alike["high"]


def test_shares_of_closest_add_up_and_split_ties() -> None:
    shares = closest_shares([1.0, 2.0, 3.0, 4.0], {"a": [1.0, 2.0, 0.0, 5.0], "b": [1.0, 0.0, 3.0, 3.0]})
    assert shares == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": {"a": [1.0, 2.0, 3.0]}}, "at least 2 predictors"),
        ({"predictions": {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0]}}, "one length"),
        ({"confidence": 1.0}, "confidence"),
        ({"n_resamples": 1}, "n_resamples"),
        ({"metrics": ["scrc"]}, "Did you mean 'srcc'"),
        ({"groups": [1, 1]}, "groups must have shape"),
    ],
)
def test_what_is_refused(changes: dict, message: str) -> None:
    options = {"predictions": {"a": [1.0, 2.0, 3.0], "b": [3.0, 2.0, 1.0]}} | changes
    with pytest.raises(ValueError, match=message):
        compare_paired([1.0, 2.0, 3.0], options.pop("predictions"), **options)
    with pytest.raises(ValueError, match="at least 2 of the 3"):
        subset_drop([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [True, False, False])


def test_p_by_group_is_rarely_small_without_a_difference_and_none_from_few_groups() -> None:
    small = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(16), 30)
        y = rng.normal(size=480)
        # Each predictor errs alike on all images of a group.
        own = {name: y + rng.normal(size=16)[group] + 0.5 * rng.normal(size=480) for name in "ab"}
        table = compare_paired(y, own, metrics=["mae"], groups=group, n_resamples=300)
        small.append(
            [table["p"][0] < 0.05, compare_paired(y, own, metrics=["mae"], n_resamples=300)["p"][0] < 0.05]
        )
    by_group, by_image = np.mean(small, axis=0)
    assert by_group < 0.1
    assert by_image > 0.4
    few = compare_paired(y, own, groups=np.arange(480) % 9, n_resamples=50)
    assert few[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(few["better"]) == {""}
