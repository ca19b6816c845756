"""UnitSVR: the same as scikit-learn's SVR in other units, and free of the units of the data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVR

from regressors.svr import UnitSVR
from tests.support.band_tables import band_table

KERNELS = ["linear", "rbf"]


@pytest.fixture(scope="module")
def standardised() -> tuple[np.ndarray, np.ndarray]:
    X, y = band_table(60)
    values = X.to_numpy()
    return (values - values.mean(axis=0)) / values.std(axis=0), y


@pytest.mark.parametrize("kernel", KERNELS)
def test_agreement_with_scikit_learn_in_its_units(
    kernel: str, standardised: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = standardised
    n_features = X.shape[1]
    ours = UnitSVR(kernel, C=2.0, epsilon=0.2, gamma=0.5, tol=1e-10).fit(X, y)
    deviation = y.std()
    # Total variance of standardised columns is their number; dividing a linear kernel by it is a smaller C.
    theirs = SVR(
        kernel=kernel,
        C=2.0 * deviation / (n_features if kernel == "linear" else 1),
        epsilon=0.2 * deviation,
        gamma=0.5 / n_features,
        tol=1e-10,
    ).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6 * deviation)


def test_gamma_one_is_what_scikit_learn_calls_scale(standardised: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = standardised
    ours = UnitSVR(gamma=1.0, C=1.0 / y.std(), epsilon=0.1 / y.std(), tol=1e-10).fit(X, y)
    theirs = SVR(gamma="scale", tol=1e-10).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_mos_scale_does_not_matter(kernel: str, standardised: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = standardised
    small = UnitSVR(kernel, tol=1e-8).fit(X, y)
    large = UnitSVR(kernel, tol=1e-8).fit(X, 100 * y + 7)
    np.testing.assert_allclose(large.predict(X), 100 * small.predict(X) + 7, rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_common_unit_of_the_features_does_not_matter(
    kernel: str, standardised: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = standardised
    here, there = UnitSVR(kernel, tol=1e-8).fit(X, y), UnitSVR(kernel, tol=1e-8).fit(1e-4 * X + 3, y)
    np.testing.assert_allclose(there.predict(1e-4 * X + 3), here.predict(X), rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_copies_of_all_columns_do_not_matter(
    kernel: str, standardised: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = standardised
    once, thrice = UnitSVR(kernel, tol=1e-8).fit(X, y), UnitSVR(kernel, tol=1e-8).fit(np.tile(X, 3), y)
    np.testing.assert_allclose(thrice.predict(np.tile(X, 3)), once.predict(X), rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_weight_is_a_repetition(kernel: str, standardised: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = standardised
    weights = np.random.default_rng(0).integers(0, 4, size=len(y))
    weighted = UnitSVR(kernel, tol=1e-9).fit(X, y, sample_weight=weights)
    repeated = UnitSVR(kernel, tol=1e-9).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_many_rows_are_predicted_a_few_at_a_time(
    kernel: str, standardised: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = standardised
    model = UnitSVR(kernel).fit(X, y)
    at_once = model.predict(X)
    monkeypatch.setattr("regressors.svr._MAX_VALUES", 7 * len(model.support_))
    np.testing.assert_allclose(model.predict(X), at_once, rtol=1e-12)


def test_constant_targets_and_features_are_no_trouble() -> None:
    X = np.ones((10, 2))
    assert UnitSVR().fit(X, np.full(10, 3.0)).predict(X) == pytest.approx(np.full(10, 3.0))
    assert np.isfinite(UnitSVR().fit(X, np.arange(10.0)).predict(X)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel": "poly"}, "kernel must be one of"),
        ({"C": 0.0}, "C must be positive"),
        ({"gamma": -1.0}, "gamma must be positive"),
        ({"epsilon": -0.1}, "epsilon must be non-negative"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnitSVR(**parameters).fit(np.eye(4), np.arange(4.0))
