import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.demo.raters import N_RATERS, N_SESSIONS, agreement, make_raters, mean_opinion, rate, to_quality


@given(st.floats(0, 0.999), st.floats(1e-4, 1.0))
def test_quality_rises_with_fidelity(value, step):
    low, high = to_quality(np.array([value, min(1.0, value + step)]))
    assert low < high
    assert 0.18 <= low < high <= 0.95


def _names(n):
    return [f"{k + 1}.jpg" for k in range(n)]


def test_ratings_do_not_depend_on_the_order_of_photos():
    fidelity = np.linspace(0.2, 1.0, 30)
    names = _names(30)
    ratings = rate(fidelity, names, 4)
    assert ratings.shape == (30, N_SESSIONS, N_RATERS)
    assert ratings.min() >= 0
    assert ratings.max() <= 100
    order = np.random.default_rng(0).permutation(30)
    again = rate(fidelity[order], [names[k] for k in order], 4)
    np.testing.assert_array_equal(again, ratings[order])
    assert (rate(fidelity, names, 5) != ratings).any()


def test_mos_is_the_mean_of_twenty_ratings_in_the_releases_steps():
    ratings = rate(np.linspace(0.2, 1.0, 50), _names(50), 0)
    mos = mean_opinion(ratings)
    np.testing.assert_allclose(mos, ratings.reshape(50, 20).mean(axis=1) / 100, atol=1e-9)
    np.testing.assert_allclose(mos / 0.0005, np.round(mos / 0.0005), atol=1e-6)


def test_raters_differ_in_bias_and_gain():
    raters = make_raters(0)
    assert len(raters) == N_RATERS
    assert np.std([r.bias for r in raters]) > 0.01
    assert np.std([r.gain for r in raters]) > 0.03


def test_the_same_rater_agrees_with_himself_more_than_with_others():
    rng = np.random.default_rng(2)
    fidelity = rng.uniform(0.6, 1.0, 400)
    ratings = rate(fidelity, _names(400), 1).astype(float)
    residue = ratings - ratings.mean(axis=(1, 2), keepdims=True)
    residue -= residue.mean(axis=0, keepdims=True)
    own = np.mean([np.corrcoef(residue[:, 0, k], residue[:, 1, k])[0, 1] for k in range(N_RATERS)])
    other = np.mean([np.corrcoef(residue[:, 0, k], residue[:, 1, k - 1])[0, 1] for k in range(N_RATERS)])
    assert own > other + 0.1


def test_agreement_reports_the_ceiling():
    fidelity = np.random.default_rng(0).beta(4.0, 1.2, 300)
    report = agreement(rate(fidelity, _names(300), 0), fidelity)
    assert set(report) == {
        "srcc_half_raters",
        "srcc_sessions",
        "srcc_one_rater_with_others",
        "srcc_mos_with_fidelity",
    }
    assert (
        report["srcc_one_rater_with_others"]
        < report["srcc_half_raters"]
        < report["srcc_mos_with_fidelity"]
        < 1.0
    )
    assert report["srcc_mos_with_fidelity"] == pytest.approx(0.97, abs=0.03)
