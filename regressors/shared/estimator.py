"""An estimator that looks its predictions up, for scikit-learn's own search to run over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from regressors.checks import Estimator, FloatArray, IntArray, Table
from regressors.fitting import take_rows
from regressors.shared.candidates import Candidate
from regressors.shared.elsewhere import local_jobs
from regressors.shared.fits import DOUBTFUL, Answers
from regressors.shared.kernel_refit import can_refit_kernel, refit_support_vectors
from regressors.shared.plan import SearchPlan
from regressors.shared.refit import RidgeRefit, can_refit


class SharedFits:
    """The answers of a shared computation, and plain fits for what it left open.

    Parameters
    ----------
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    plan : SearchPlan
        Pipeline, candidates, folds and metadata.
    answers : Answers
        Predictions by candidate.
    has_room : bool, default=True
        Whether the refit may hold kernels of all rows.
    """

    def __init__(
        self,
        X: Table,
        y: ArrayLike | None,
        plan: SearchPlan,
        answers: Answers,
        *,
        has_room: bool = True,
    ) -> None:
        self._X, self._y = X, np.asarray(y)
        self._plan = plan
        self._answers = answers
        self._has_room = has_room
        # By training rows: the folds that have them, each with its test rows.
        self._folds: dict[bytes, dict[bytes, int]] = {}
        for number, (train, test) in enumerate(plan.folds):
            self._folds.setdefault(train.tobytes(), {})[test.tobytes()] = number
        self._ahead: RidgeRefit | None = None

    def prepare_refit(self, n_jobs: int | None) -> None:
        """Begin in other threads what any of the ridge candidates needs to be fitted on all rows."""
        candidates = self._plan.candidates
        # Candidates that scikit-learn must fit need the cores themselves.
        if all(can_refit(self._plan.table, candidate) for candidate in candidates):
            self._prepare([candidate for candidate in candidates if candidate is not None], n_jobs)

    def _prepare(self, candidates: Sequence[Candidate], n_jobs: int | None) -> None:
        answers = self._answers
        self._ahead = RidgeRefit(self._plan.table, candidates, answers.scales, answers.gram, n_jobs=n_jobs)

    def close(self) -> None:
        """End what was begun in other threads."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def predictions(self, parameters: Mapping[str, Any], train: IntArray) -> dict[bytes, FloatArray] | None:
        """Return the predictions of a candidate by the bytes of the test rows; None if any is missing."""
        candidate = self._plan.read(parameters)
        folds = self._folds.get(train.tobytes())
        if candidate is None or folds is None:
            return None
        known = self._answers.predictions.get(candidate)
        found = {test: None if known is None else known[fold] for test, fold in folds.items()}
        complete = {test: predicted for test, predicted in found.items() if predicted is not None}
        return complete if len(complete) == len(found) else None

    def fit_plain(self, parameters: Mapping[str, Any], train: IntArray) -> Pipeline:
        """Fit the pipeline by scikit-learn on some rows."""
        pipeline = clone(self._plan.pipeline).set_params(**clone(dict(parameters), safe=False))
        n_rows = len(self._y)
        if np.array_equal(train, np.arange(n_rows)):
            return pipeline.fit(self._X, self._y, **self._plan.fit_params)
        params = {
            name: value if value is None else np.asarray(value)[train]
            for name, value in self._plan.fit_params.items()
        }
        return pipeline.fit(take_rows(self._X, train), self._y[train], **params)

    def is_refit(self, train: IntArray) -> bool:
        """Say whether these training rows are all of the table, and no fold's."""
        return train.tobytes() not in self._folds and np.array_equal(train, np.arange(len(self._y)))

    def refit(self, parameters: Mapping[str, Any], train: IntArray, n_jobs: int | None) -> Pipeline:
        """Fit the pipeline on all rows, from what is computed already where that is safe."""
        candidate = self._plan.read(parameters)
        is_known = candidate is not None and candidate in self._answers.doubt
        if candidate is not None and is_known and self._answers.doubt[candidate] <= DOUBTFUL:
            if self._ahead is None and can_refit(self._plan.table, candidate):
                self._prepare([candidate], n_jobs)
            pipeline = clone(self._plan.pipeline).set_params(**clone(dict(parameters), safe=False))
            if can_refit_kernel(candidate) and self._has_room:
                return refit_support_vectors(
                    pipeline,
                    self._X,
                    self._y,
                    candidate,
                    self._plan.table,
                    self._answers.scales,
                    n_jobs=n_jobs,
                )
            if self._ahead is not None:
                fitted = self._ahead.fit(pipeline, self._X, self._y, candidate)
                if fitted is not None:
                    return fitted
        self.close()
        # Nothing else runs now, so that BLAS may have the cores that the folds had.
        with threadpool_limits(limits=local_jobs(n_jobs), user_api="blas"):
            return self.fit_plain(parameters, train)

    def predict_plain(self, pipeline: Pipeline, rows: IntArray) -> FloatArray:
        """Predict some rows by a fitted pipeline."""
        return pipeline.predict(take_rows(self._X, rows))

    def held_out(self, parameters: Mapping[str, Any]) -> FloatArray:
        """Return each row's prediction, the mean over the folds that test it; nan where none does."""
        total, n_tested = np.zeros(len(self._y)), np.zeros(len(self._y))
        for train, test in self._plan.folds:
            known = self.predictions(parameters, train)
            if known is None:
                predicted = self.predict_plain(self.fit_plain(parameters, train), test)
            else:
                predicted = known[test.tobytes()]
            np.add.at(total, test, predicted)
            np.add.at(n_tested, test, 1)
        return np.divide(total, n_tested, out=np.full(len(total), np.nan), where=n_tested > 0)


class _QuickRows(np.ndarray):
    """An array whose rows scikit-learn takes without first asking of what library it is.

    Its search cuts four arrays for every candidate and fold; for plain arrays asking takes longer than cutting, while
    of anything with an ``iloc`` it takes rows at once.
    """

    iloc = None

    def take(self, rows: IntArray, axis: int = 0, **options: object) -> np.ndarray:  # type: ignore[override]
        """Return some rows, as a plain array."""
        return np.asarray(self)[rows]


def quick_rows(array: np.ndarray) -> np.ndarray:
    """Return a view of an array whose rows scikit-learn takes quickly.

    Parameters
    ----------
    array : array of shape (n_rows, ...)

    Returns
    -------
    array of the same shape
        Parts of it are plain arrays.
    """
    return array.view(_QuickRows)


class _SharedEstimator(RegressorMixin, BaseEstimator):
    """A candidate of a search whose table is the positions of the rows, shape (n_rows, 1)."""

    def __init__(self, shared: SharedFits) -> None:
        self.shared = shared
        self._parameters: dict[str, Any] = {}

    def __sklearn_clone__(self) -> Estimator:
        # The answers are shared, not copied.
        twin = _SharedEstimator(self.shared)
        twin._parameters = dict(self._parameters)
        return twin

    def set_params(self, **parameters: object) -> Estimator:
        """Take the parameters of the pipeline."""
        self._parameters |= parameters
        return self

    def fit(self, rows: IntArray, y: ArrayLike) -> Estimator:
        """Look the candidate up, or fit it by scikit-learn; the best one, on all rows, is left to `pipeline`."""
        self._train = rows[:, 0]
        self._known = self.shared.predictions(self._parameters, self._train)
        self._fitted = None
        if self._known is None and not self.shared.is_refit(self._train):
            self._fitted = self.shared.fit_plain(self._parameters, self._train)
        return self

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the predictions of the test rows."""
        if self._known is not None:
            return self._known[rows[:, 0].tobytes()]
        return self.shared.predict_plain(self._fitted, rows[:, 0])

    def pipeline(self, n_jobs: int | None) -> Pipeline:
        """Return the pipeline fitted on the training rows, all of the table's."""
        if self._fitted is None:
            self._fitted = self.shared.refit(self._parameters, self._train, n_jobs)
        return self._fitted


def make_shared_estimator(shared: SharedFits) -> Estimator:
    """Make the estimator over which a search runs.

    Parameters
    ----------
    shared : SharedFits
        Answers and plain fits.

    Returns
    -------
    estimator
        With `fit` and `predict` on row positions of shape (n_rows, 1), and `pipeline`, which fits the pipeline.
    """
    return _SharedEstimator(shared)
