"""Checks whether a run fools its reader: leaks, copies, shared groups, no skill, narrow scores, chance that scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from featbank.datasets.scenes import count_shared, word_shared
from featbank.errors import first_few
from featbank.recipes.reading import RegressionRequest
from featbank.runs.evaluate import judge, score_parts
from featbank.runs.folder import TRUST, none_if_nan, read_run, write_json
from featbank.runs.model import build_ensemble
from featbank.runs.split import split_names
from regressors.bands import BlockTable, band_columns, some_rows, take_columns, take_rows
from regressors.checks import Table
from regressors.ensemble import NoSkillWarning
from regressors.evaluation.controls import (
    FALSE_ALARM,
    IMPLAUSIBLE_SRCC,
    PermutationControl,
    find_leaking_columns,
    find_near_duplicates,
    permutation_control,
)
from regressors.evaluation.intervals import MIN_GROUPS
from regressors.evaluation.metrics import METRICS, plcc, srcc
from regressors.folds import Fold
from regressors.novelty import EXTREME_DEVIATIONS, find_extreme_columns

if TYPE_CHECKING:
    from featbank.runs.folder import RunData

TOLERANCE = 1e-6
"""Written values are judged, so only the rounding of another machine moves a metric; one that moves by more was not
computed from them."""


def recomputed_scores(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Judge written predictions as ``fit`` does.

    Parameters
    ----------
    predictions : DataFrame
        ``image, split, subset, mos, predicted``; rows without MOS or prediction are passed over.

    Returns
    -------
    dict of str to dict
        ``n`` and every metric by part, ``training_cv`` for the out-of-fold predictions; None where a metric is
        undefined.
    """
    known = predictions[np.isfinite(predictions["mos"]) & np.isfinite(predictions["predicted"])]
    scores = score_parts(known, known["predicted"].to_numpy(dtype=np.float64), with_intervals=False)
    training = known[known["split"] == "training"]
    if len(training) >= 2:
        y, y_pred = (training[name].to_numpy(dtype=np.float64) for name in ("mos", "predicted"))
        scores["training_cv"] = judge(y, y_pred, with_intervals=False)
    return scores


def disagreements(run: RunData) -> list[str]:
    """Compare a run's stored metrics with those of its predictions.

    Returns
    -------
    list of str
        One phrase for each value that does not follow from the predictions; empty for an honest run.
    """
    computed = recomputed_scores(run.predictions)
    found = []
    for part, stored in run.scores.items():
        anew = computed.get(part)
        if anew is None:
            if part == "training_cv" or part.startswith(("validation", "test")):
                found.append(f"{part} is scored but has no predictions")
            continue
        if stored.n != anew["n"]:
            found.append(f"{part} is said to have {stored.n:,} images, its predictions {anew['n']:,}")
            continue
        for name in METRICS:
            said = stored.metrics[name]
            value = math.nan if anew[name] is None else float(anew[name])
            if _differ(said, value):
                found.append(f"{name.upper()} of {part} is said to be {said:.6g}, is {value:.6g}")
    return found


def _differ(stored: float, computed: float) -> bool:
    if math.isnan(stored) or math.isnan(computed):
        return math.isnan(stored) != math.isnan(computed)
    return abs(stored - computed) > TOLERANCE * max(1.0, abs(computed))


OK: Final = "ok"
CAUTION: Final = "caution"
ALARM: Final = "alarm"

IMPLAUSIBLE_HELD_OUT: Final = 0.985
"""SRCC of held-out predictions above the agreement of raters with themselves."""

COMPRESSED_SLOPE: Final = 1.5
"""Least-squares slope of MOS over prediction from which predictions are called compressed; 1 is calibrated."""

MIN_ROWS: Final = 20
"""With fewer judged images a check of ranges says nothing."""

WORSE: Final = 1.4
"""Error in units of a constant prediction's from which a model may be called worse; noise stays below."""

CHANCE: Final = 1 / 30_000
"""Probability of a difference from which it is no chance, as in the permutation control."""

N_SHOWN: Final = 3

SCENES: Final = "scenes across splits"

GRAVE_SHARE: Final = 0.01
"""Share of judged images with a scene of the training from which a split made here is called wrong."""

DUPLICATE_ROWS: Final = 500
"""Judged images whose neighbours are sought, of a table that is read by blocks."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: its name, ``ok``, ``caution`` or ``alarm``, a sentence, JSON-able numbers behind it."""

    check: str
    level: str
    sentence: str
    figures: dict[str, Any]


def _find(check: str, figures: dict[str, Any], ok: str, alarm: str = "", caution: str = "") -> Finding:
    """Give the gravest outcome that has a sentence."""
    return Finding(check, ALARM if alarm else CAUTION if caution else OK, alarm or caution or ok, figures)


def check_columns(X: Table, y: NDArray[np.float64], held_out: NDArray[np.float64]) -> Finding:
    """Look for the MOS among the columns, and for held-out scores too good to come from images."""
    leaks = find_leaking_columns(X, y)
    tested = np.isfinite(held_out)
    whole = srcc(y[tested], held_out[tested]) if tested.sum() >= 2 else math.nan
    named = {str(X.columns[i]): value for i, value in leaks.items()}
    alarm = ""
    if named:
        shown = first_few([f"{name} ({value:+.3f})" for name, value in named.items()], N_SHOWN)
        alarm = (
            f"{len(named)} of {X.shape[1]:,} columns rank the training images almost as the MOS does: {shown} "
            "(SRCC). No image statistic does; the MOS, or something made from it, is among the features."
        )
    elif tested.sum() >= MIN_ROWS and whole > IMPLAUSIBLE_HELD_OUT:
        alarm = (
            f"Held-out training images are ranked with SRCC {whole:.4f}, better than raters agree with each other. No "
            "single column does it, so the MOS is hidden in several, or images are on both sides of the folds."
        )
    return _find(
        "target in a column",
        {"columns": named, "held_out_srcc": none_if_nan(whole)},
        f"None of {X.shape[1]:,} columns ranks the training images as the MOS does (all below |SRCC| "
        f"{IMPLAUSIBLE_SRCC:g}).",
        alarm,
    )


def check_duplicates(X_judged: Table, X_training: Table) -> Finding:
    """Look for judged images that are, or nearly are, training images, by all features and by those of each band.

    Another compression changes the statistics of noise, a slight crop the layout: each leaves some band as it was. Of a
    table that is read by blocks `DUPLICATE_ROWS` judged images are drawn.
    """
    n_judged = len(X_judged)
    if isinstance(X_judged, BlockTable):
        X_judged = X_judged.frame(some_rows(X_judged, DUPLICATE_ROWS))
    whole = f"{n_judged:,}" if len(X_judged) == n_judged else f"{len(X_judged):,} drawn from {n_judged:,}"
    bands = band_columns(X_training.columns)
    tables = [list(X_training.columns), *(bands.values() if len(bands) > 1 else ())]
    nearest: dict[int, tuple[float, int]] = {}
    for columns in tables:
        found = find_near_duplicates(
            X_judged[columns], take_columns(X_training, columns), false_alarm=FALSE_ALARM / len(tables)
        )
        for row, partner, ratio in zip(found.rows, found.partners, found.ratios, strict=True):
            nearest[int(row)] = min(nearest.get(int(row), (2.0, 0)), (float(ratio), int(partner)))
    pairs = [
        {
            "image": str(X_judged.index[row]),
            "training_image": str(X_training.index[partner]),
            "ratio": round(ratio, 4),
        }
        for row, (ratio, partner) in sorted(nearest.items(), key=lambda item: (item[1][0], item[0]))
    ]
    shown = "; ".join(f"{pair['image']} like {pair['training_image']}" for pair in pairs[:N_SHOWN])
    alarm = (
        f"{len(pairs):,} of {whole} judged images look like copies of training images by their features: {shown}. "
        "Scores on them are scores on images that the model was taught."
    )
    return _find(
        "duplicates across splits",
        {"pairs": pairs[:100], "n": len(pairs), "n_judged": len(X_judged)},
        f"None of {whole} judged images lies suspiciously close to a training image by its features.",
        alarm if pairs else "",
    )


def check_groups(
    training: pd.DataFrame, judged: pd.DataFrame, predicted: NDArray[np.float64], *, is_official: bool = False
) -> Finding:
    """Count judged images whose group also taught, and score those whose group did not.

    Parameters
    ----------
    training, judged : DataFrame
        Columns ``group``, ``mos`` and ``split``.
    predicted : float array of shape (n_judged,)
    is_official : bool
        Whether the split is a published dataset's own: then shared groups are a fact to know and no mistake.
    """
    taught = set(training["group"])
    is_shared = judged["group"].isin(taught).to_numpy()
    mos = judged["mos"].to_numpy(dtype=np.float64)
    splits: dict[str, dict[str, Any]] = {}
    parts = []
    for split in dict.fromkeys(judged["split"]):
        rows = (judged["split"] == split).to_numpy()
        unseen = rows & ~is_shared
        n, n_unseen = int(rows.sum()), int(unseen.sum())
        score = srcc(mos[unseen], predicted[unseen]) if n_unseen >= MIN_ROWS else math.nan
        splits[str(split)] = {
            "n": n,
            "n_shared": n - n_unseen,
            "srcc_unseen_groups": none_if_nan(score),
            "n_unseen_groups": n_unseen,
        }
        if n > n_unseen:
            text = f"{n - n_unseen:,} of {n:,} {split} images ({(n - n_unseen) / n:.1%})"
            if math.isfinite(score):
                text += f", the other {n_unseen:,} alone having SRCC {score:.3f}"
            parts.append(text)
    shared = (
        f"{'; '.join(parts)} come from a group (uploader, scene, reference) that has training images too"
        + (", by the dataset's own split" if is_official else "")
        + ". A score on known groups is no score on new ones."
    )
    return _find(
        "groups across splits",
        {"splits": splits, "n_groups_shared": len(taught & set(judged["group"]))},
        "No group has images both in training and among the judged ones.",
        shared if parts and not is_official else "",
        shared if parts else "",
    )


def check_scenes(
    training: pd.DataFrame,
    judged: pd.DataFrame,
    predicted: NDArray[np.float64],
    partners: NDArray[np.intp] | str,
    *,
    is_official: bool = False,
) -> Finding:
    """Count judged images that show the scene of a training image, and score those that do not.

    Parameters
    ----------
    training, judged : DataFrame
        Index ``image_id``; ``judged`` with ``mos`` and ``split``.
    predicted : float array of shape (n_judged,)
    partners : int array of shape (n_judged,), or str
        As `featbank.datasets.scenes.compare_files` gives it.
    is_official : bool
        Whether the split is a published dataset's own.
    """
    if isinstance(partners, str):
        return _find(SCENES, {}, f"The photos were not compared: {partners}.")
    mos = judged["mos"].to_numpy(dtype=np.float64)
    splits: dict[str, dict[str, Any]] = {}
    parts: list[str] = []
    others: list[str] = []
    for split in dict.fromkeys(judged["split"]):
        compared = (judged["split"] == split).to_numpy() & (partners > -2)
        new = compared & (partners < 0)
        counts = count_shared(judged.index[compared], partners[compared] >= 0)
        score = srcc(mos[new], predicted[new]) if new.sum() >= MIN_ROWS else math.nan
        splits[str(split)] = counts | {"srcc_new_scenes": none_if_nan(score), "n_new_scenes": int(new.sum())}
        if counts["n_shared"]:
            parts.append(word_shared(str(split), counts))
            if math.isfinite(score):
                others.append(f" The other {new.sum():,} {split} images alone have SRCC {score:.3f}.")
    pairs = [
        {"image": str(judged.index[row]), "training_image": str(training.index[partners[row]])}
        for row in np.flatnonzero(partners >= 0)
    ]
    shown = "; ".join(f"{pair['image']} like {pair['training_image']}" for pair in pairs[:N_SHOWN])
    shared = (
        f"{'; '.join(parts)} show the scene of a training image, by their pictures: {shown}"
        + (", by the dataset's own split" if is_official else "")
        + f".{''.join(others)} A score on known scenes is no score on new ones"
        + ("." if is_official else ": give photos of one scene one group.")
    )
    grave = not is_official and len(pairs) >= GRAVE_SHARE * max(1, len(judged))
    return _find(
        SCENES,
        {"splits": splits, "pairs": pairs[:100]},
        "No judged image shows the scene of a training image, by their pictures.",
        shared if pairs and grave else "",
        shared if pairs else "",
    )


def check_skill(
    metrics: Mapping[str, Any], judged: pd.DataFrame, predicted: NDArray[np.float64], constant: float
) -> Finding:
    """Compare the errors on every part with those of the mean training MOS, ``constant``.

    An alarm needs a whole split on which they are larger by `WORSE` and by more than chance explains; a model of
    noise errs a little more than a constant, and is no worse than it says.
    """
    masks = split_names(judged)
    y, groups = judged["mos"].to_numpy(dtype=np.float64), judged["group"].to_numpy()
    worse, figures, is_sure = [], {}, False
    for part, floor in metrics.get("baselines", {}).get("constant", {}).items():
        figures[part] = {error: [metrics[part][error], floor[error]] for error in ("mae", "rmse")}
        over = [
            f"{error.upper()} {own:.4g} against {other:.4g}"
            for error, (own, other) in figures[part].items()
            if own > other
        ]
        if over:
            worse.append(f"{part}: {', '.join(over)}")
            rows = masks[part]
            is_sure |= "/" not in part and _is_surely_worse(y[rows], predicted[rows], constant, groups[rows])
    text = f"The mean training MOS, said for every image, errs less than this model ({'; '.join(worse)})"
    return _find(
        "worse than a constant",
        figures,
        "The model errs less than the mean training MOS on every part."
        if figures
        else "No images to judge by.",
        f"{text}." if is_sure else "",
        f"{text}, by no more than chance or noise explain." if worse else "",
    )


def _is_surely_worse(
    y: NDArray[np.float64], predicted: NDArray[np.float64], constant: float, groups: NDArray[np.object_]
) -> bool:
    """Tell whether the error, absolute or squared, exceeds a constant's by `WORSE`, tested over groups of images."""
    codes, names = pd.factorize(groups)
    if len(y) < MIN_ROWS or len(names) < MIN_GROUPS:
        return False
    for power in (1, 2):
        own, floor = np.abs(predicted - y) ** power, np.abs(constant - y) ** power
        excess = own - floor
        if not own.mean() > WORSE**power * floor.mean():
            continue
        sums = np.bincount(codes, excess - excess.mean(), len(names))
        error = math.sqrt((sums**2).sum() * len(names) / (len(names) - 1)) / len(y)
        if error == 0 or student_t.sf(excess.mean() / error, len(names) - 1) < CHANCE:
            return True
    return False


def check_range(judged: pd.DataFrame, predicted: NDArray[np.float64]) -> Finding:
    """See whether predictions span as much as their correlation with MOS warrants."""
    narrow, figures = [], {}
    for split in dict.fromkeys(judged["split"]):
        rows = (judged["split"] == split).to_numpy()
        y, y_pred = judged["mos"].to_numpy(dtype=np.float64)[rows], predicted[rows]
        if len(y) < MIN_ROWS or np.ptp(y) == 0:
            continue
        share, r, slope, error = float(np.std(y_pred) / np.std(y)), plcc(y, y_pred), math.nan, math.nan
        if share > 0 and math.isfinite(r):
            slope = r / share  # of least squares, MOS over prediction, and its standard error
            error = math.sqrt(max(0.0, 1 - r**2) / (len(y) - 2)) / share
        figures[str(split)] = {"share": share, "slope": none_if_nan(slope), "slope_error": none_if_nan(error)}
        # A ridge that shrinks as it should has slope 1, whatever its share; only more is compression.
        if math.isnan(r) or slope - 2 * error > COMPRESSED_SLOPE:
            detail = f"one point of them stands for {slope:.1f} MOS points"
            if math.isnan(r):
                detail = "they are constant"
            narrow.append(f"{split}: they spread {share:.0%} as much as the MOS, and {detail}")
    caution = (
        f"Predictions are squeezed together ({'; '.join(narrow)}): ranks may be right, but the scores are not on the "
        "MOS scale."
    )
    text = "Predictions span as much of the scale as their correlation with MOS warrants."
    text = text if figures else f"Fewer than {MIN_ROWS} judged images: not checked."
    return _find("compressed range", figures, text, caution=caution if narrow else "")


def is_off_scale(y: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell predictions that lie farther outside the training MOS than these are wide; nan is none of them."""
    span = float(np.ptp(y))
    return (predicted < y.min() - span) | (predicted > y.max() + span)


def check_scale(
    y: NDArray[np.float64],
    held_out: NDArray[np.float64],
    predicted: NDArray[np.float64],
    columns: Mapping[str, float] | None = None,
    n_cured: int = 0,
    n_explained: int = 0,
) -> Finding:
    """Look for predictions far off the scale, which outlying features cause.

    Parameters
    ----------
    y, held_out : float arrays of shape (n_training,)
        MOS and out-of-fold predictions of the training images.
    predicted : float array of shape (n_judged,)
    columns : mapping of str to float, optional
        Columns that lie extremely far out in rows with such predictions, and how far, in standard deviations.
    n_cured, n_explained : int
        Judged predictions that are back on the scale with these columns at their training mean, of how many tried.
    """
    span = float(np.ptp(y))
    low, high = float(y.min()) - span, float(y.max()) + span
    known = held_out[np.isfinite(held_out)]
    n_held_out, n_judged = (int(is_off_scale(y, values).sum()) for values in (known, predicted))
    where = " and ".join(
        f"{n} of {len(values):,} {what}"
        for n, values, what in ((n_judged, predicted, "judged"), (n_held_out, known, "out-of-fold"))
        if n
    )
    cause = "no column alone explains it; these photos, or a whole band, are unlike those of training."
    if columns:
        named = first_few([f"{column} ({size:.3g})" for column, size in columns.items()], N_SHOWN)
        cured = (
            f" With their training mean, {n_cured} of {n_explained} are on the scale." if n_explained else ""
        )
        cause = (
            f"{len(columns):,} columns lie more than {EXTREME_DEVIATIONS:g} standard deviations from the training "
            f"photos there: {named}.{cured} Leave these columns out of the features, or bound them where they are "
            "computed, and fit again."
        )
    text = (
        f"{where} predictions lie farther outside the training MOS than these are wide ({low:.3g} to {high:.3g}), "
        f"which spoils MAE, RMSE and PLCC: {cause}"
    )
    return _find(
        "predictions off the scale",
        {
            "low": low,
            "high": high,
            "n_out_of_fold": n_held_out,
            "n_judged": n_judged,
            "columns": dict(columns or {}),
            "n_judged_cured": n_cured,
        },
        "No prediction lies far outside the range of the training MOS.",
        text if n_judged or (n_held_out and columns) else "",
        text if where else "",
    )


def check_control(control: PermutationControl | None) -> Finding:
    """Judge the permutation control."""
    name = "permutation control"
    if control is None:
        text = "Not run: none was asked for, or the MOS have too few values to shuffle."
        return _find(name, {"n": 0}, text)
    n = len(control.shuffled)
    figures = {
        "n": n,
        "mean": control.mean,
        "spread": control.spread,
        "unchosen": [float(value) for value in control.unchosen],
        "limit": control.limit,
        "shuffled": [float(value) for value in control.shuffled],
        "score": control.score,
    }
    times = "once" if n == 1 else f"{n} times"
    spread = f" ± {control.spread:.3f}" if n > 1 else ""
    text = f"Refitted {times} on shuffled MOS, the pipeline scores SRCC {control.mean:.3f}{spread} on held-out folds"
    leak = (
        f"{text}, and {control.unchosen.mean():.3f} in the mean of all candidates, chance staying below "
        f"{control.limit:.3f}, where there is nothing to learn: held-out images leak into the fit."
    )
    no_skill = (
        f"{text}; {control.n_above} of {n} shuffles score as high as the true MOS ({control.score:.3f}), so the "
        "features may hold nothing about quality."
    )
    return _find(
        name,
        figures,
        f"{text}, the true MOS {control.score:.3f}.",
        leak if control.is_leaking else "",
        no_skill if control.n_above else "",
    )


def check_coverage(intervals: Mapping[str, Any]) -> Finding:
    """Compare the coverage of the prediction intervals, as in ``metrics.json``, with what they promise."""
    name = "interval coverage"
    if not intervals:
        return _find(name, {}, "No intervals: too few training images to calibrate them.")
    promised, parts = intervals["confidence"], intervals["coverage"]
    short = [
        f"{part}: {entry['share']:.1%} of {entry['n']:,}"
        for part, entry in parts.items()
        if entry["n"] >= MIN_ROWS and entry["share"] < entry["expected"][0]
    ]
    caution = (
        f"Intervals promise {promised:.0%} and cover less ({'; '.join(short)}): these images are unlike the "
        f"{intervals.get('calibrated_on', 'training')} images that the intervals were calibrated on."
    )
    covered = ", ".join(f"{part} {entry['share']:.1%}" for part, entry in parts.items())
    text = (
        f"Intervals of {promised:.0%} cover {covered}."
        if parts
        else "No judged images to show the coverage on."
    )
    return _find(name, dict(parts), text, caution=caution if short else "")


def check_agreement(disagreements: Sequence[str]) -> Finding:
    """Judge whether the written metrics follow from the written predictions."""
    more = f", and {len(disagreements) - 1} more." if len(disagreements) > 1 else "."
    return _find(
        "metrics follow from predictions",
        {"disagreements": list(disagreements)},
        "Computed anew from predictions.csv, every metric is the one in metrics.json.",
        f"metrics.json does not follow from predictions.csv: {disagreements[0]}{more}"
        if disagreements
        else "",
    )


def alarming(findings: Sequence[Finding]) -> list[str]:
    """Return the sentences of the alarms, for the console."""
    return [f"{finding.check}: {finding.sentence}" for finding in findings if finding.level == ALARM]


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
    weights : float array of shape (n_rows,) or None
        How much each row counts, where a recipe asks for it.
    """

    X: Table
    rows: pd.DataFrame
    y: NDArray[np.float64]
    held_out: NDArray[np.float64]
    folds: list[Fold]
    weights: NDArray[np.float64] | None = None


def choose_permutations(request: RegressionRequest, n_rows: int, n_columns: int) -> int:
    """Choose how many shuffles the control makes: five of a small problem, one of a large one.

    A shuffle of many rows is as telling as several of few, and costs as much as the fit itself. Decided by the size
    of the problem and not by a clock, so that a run is the same on every machine.
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
            ensemble.fit(training.X, y, sample_weight=training.weights)
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
    scenes: NDArray[np.intp] | str,
    predict: Callable[[pd.DataFrame], NDArray[np.float64]],
) -> list[Finding]:
    """Run every check that needs the features.

    Parameters
    ----------
    predicted : float array of shape (n_judged,)
    metrics : mapping
        Content of ``metrics.json``.
    scenes : int array of shape (n_judged,), or str
        Training images of the same scene, or why they are unknown.
    """
    findings = [check_columns(training.X, training.y, training.held_out)]
    if len(judged):
        findings += [
            check_duplicates(X_judged, training.X),
            check_groups(training.rows, judged, predicted, is_official=is_official_split),
            check_scenes(training.rows, judged, predicted, scenes, is_official=is_official_split),
            check_skill(metrics, judged, predicted, float(training.rows["mos"].mean())),
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

    Returns
    -------
    list of Finding
        All of them, the last check included.
    """
    every = [*findings, check_agreement(disagreements(read_run(folder)))]
    write_json(folder / TRUST, {"findings": [asdict(finding) for finding in every]})
    return every
