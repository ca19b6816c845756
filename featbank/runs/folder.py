"""The run folder on disk: its files, its receipt, and what reports, comparisons and leaderboards read of it."""

from __future__ import annotations

import json
import math
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank import __version__
from featbank.atomic import FolderKind
from featbank.datasets import ImageTable
from featbank.errors import FeatbankError, RunError, redact
from featbank.extract import measured_seconds
from featbank.recipes.reading import Recipe
from featbank.remote import Place, check_regular, read_regular
from featbank.runs.split import name_groups
from featbank.table import Band
from regressors.evaluation.metrics import EVALUATED

MAX_JSON_BYTES = 1 << 28

RECEIPT = "receipt.json"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
TRUST = "trust.json"

STUDY_FILES: Final = frozenset({"search.journal", "search.lock", "finish.lock"})
"""What the processes of a search share in its folder; the winner's run is written beside them."""

RUN: Final = FolderKind("run")
PROTOCOL: Final = FolderKind("protocol")
SEARCH: Final = FolderKind("search", shared=STUDY_FILES)


def kind_of(folder: Path) -> FolderKind:
    """Return the kind of a folder that holds a run, by itself or as the outcome of a search."""
    return SEARCH if "search" in read_json(folder, RECEIPT) else RUN


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8; lone surrogates, from names of files that never were UTF-8, become ``?``."""
    path.write_bytes(text.encode("utf-8", errors="replace"))
    return path


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON-able value
    """Write indented JSON without credentials of URLs; NaN is refused because JSON has no form for it."""
    path.write_text(redact(json.dumps(value, indent=2, allow_nan=False)) + "\n", encoding="utf-8")


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Read one of the run's JSON files.

    Raises
    ------
    RunError
        If ``run`` is not a run folder, or the file is damaged or holds no JSON object.
    """
    path = Path(run) / name
    try:
        value = json.loads(read_regular(path, MAX_JSON_BYTES, RunError).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{str(run)!r} is not a run folder: it has no {name}. Runs are written by `featbank fit ... --out RUN`."
        ) from error
    except RunError:
        raise
    except (ValueError, RecursionError) as error:
        raise RunError(f"run {str(run)!r}: {name} is damaged ({error}). Run `featbank fit` again.") from error
    if not isinstance(value, dict):
        raise RunError(
            f"run {str(run)!r}: {name} must hold a JSON object, got {type(value).__name__}. Run `featbank fit` again."
        )
    return value


@contextmanager
def telling_damage(run: str | Path) -> Iterator[None]:
    """Call a run folder damaged where its files hold values of another kind than ``fit`` writes.

    Raises
    ------
    RunError
        In place of the errors that such values cause.
    """
    try:
        yield
    except (FeatbankError, BrokenPipeError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise RunError(
            f"run {str(run)!r} is damaged: a file holds other values than `featbank fit` writes "
            f"({type(error).__name__}: {str(error)[:200]}). Run `featbank fit` again."
        ) from error


RECEIPT_VERSION = 1

LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "mapie",
    "pillow",
    "simplejpeg",
    "pyarrow",
    "skops",
    "joblib",
    "torch",
)


def describe_code() -> dict[str, Any]:
    """Return the package version and, in a checkout, the commit and whether the tree was clean."""
    folder = Path(__file__).resolve().parents[2]
    commit = _git(folder, "rev-parse", "HEAD") if (folder / ".git").exists() else None
    clean = None if commit is None else _git(folder, "status", "--porcelain", "--untracked-files=no") == ""
    return {"version": __version__, "commit": commit, "clean": clean}


def describe_libraries() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries that can change a number."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_dataset(table: ImageTable, rows: pd.DataFrame) -> dict[str, Any]:
    """Return name, place, scale and counts of the rows that took part."""
    counts = rows["split"].value_counts()
    exclusive = rows.loc[rows["subset"] == "exclusive", "split"].value_counts()
    return {
        "name": table.name,
        "path": str(table.root),
        "asked": table.asked,
        "n_listed": len(table.frame),
        "counts": {str(split): int(n) for split, n in counts.items()},
        "exclusive": {str(split): int(n) for split, n in exclusive.items()},
        "n_groups": int(rows["group"].nunique()),
        "mos_range": [none_if_nan(bound) for bound in table.mos_range],
        "simulation": table.is_simulation,
        "notes": list(table.notes),
    }


def describe_features(bands: list[Band]) -> list[dict[str, Any]]:
    """Return one entry for each band: what it is, its digest in the bank, what it costs."""
    return [
        {
            "band": band.name,
            "encoder": band.encoder,
            "view": band.view,
            "aggregate": band.aggregate,
            "digest": band.folder.digest,
            "n_features": band.folder.n_features,
            "gmacs": none_if_nan(band.gmacs),
            "params_m": none_if_nan(band.params_m),
            "pass": band.pass_id,
            "role": band.role,
            "licence": band.licence,
            "weights": band.weights,
        }
        for band in bands
    ]


def describe_passes(bands: list[Band]) -> list[dict[str, Any]]:
    """Return one entry for each distinct forward computation, with the bands that share it."""
    passes: dict[str, dict[str, Any]] = {}
    for band in bands:
        entry = passes.setdefault(
            band.pass_id,
            {
                "pass": f"{band.encoder}@{band.view}",
                "bands": [],
                "gmacs": none_if_nan(band.gmacs),
                "params_m": none_if_nan(band.params_m),
            },
        )
        entry["bands"].append(band.name)
    return list(passes.values())


def build_receipt(
    recipe: Recipe,
    table: ImageTable,
    rows: pd.DataFrame,
    bands: list[Band],
    bank_root: Place,
    details: dict[str, Any],
) -> dict[str, Any]:
    """Assemble the receipt.

    Parameters
    ----------
    rows : DataFrame
        The rows that took part, with ``split``, ``subset`` and ``group``.

    Returns
    -------
    dict
        JSON-able.
    """
    measured = measured_seconds(bank_root)
    labels = {band.folder.label for band in bands} | {"decode", "views"}
    return {
        "receipt_version": RECEIPT_VERSION,
        "recipe": {
            "name": recipe.name,
            "title": recipe.title,
            "digest": recipe.digest,
            "text": recipe.to_toml(),
        },
        "code": describe_code(),
        "versions": describe_libraries(),
        "machine": {"platform": platform.platform(), "processor": platform.machine()},
        "dataset": describe_dataset(table, rows),
        "features": describe_features(bands),
        "passes": describe_passes(bands),
        "seconds_per_photo": {name: round(value, 4) for name, value in measured.items() if name in labels},
        **details,
    }


def none_if_nan(value: float) -> float | None:
    """Return None in place of NaN and infinities, for which JSON has no form."""
    return float(value) if math.isfinite(value) else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - git is looked up as the user's shell would
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


_FIRST = ("srcc", "plcc", "plcc_logistic", "krcc", "mae", "rmse", "rmse_logistic")
METRIC_NAMES = (*_FIRST, *(name for name in EVALUATED if name not in _FIRST))
"""In the order of tables."""
SPLITS = ("training", "validation", "test")

_NOT_PARAMETERS = re.compile(r"member|params|(rank|mean|std|split\d+)(_.*)?")


@dataclass(frozen=True)
class Scores:
    """Metrics of one predictor on one split or subset.

    Attributes
    ----------
    n : int
        Images behind the numbers.
    metrics : dict of str to float
        One entry for each of ``METRIC_NAMES``; nan where the run gives none, as the SRCC of a constant.
    ci95 : dict of str to (float, float)
        Bootstrap intervals, for the metrics that have one.
    ci95_reason : str
        Why there are none, if they were withheld.
    """

    n: int
    metrics: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    ci95_reason: str = ""


@dataclass(frozen=True)
class RunData:
    """What ``fit`` left in a run folder.

    Attributes
    ----------
    scores : dict of str to Scores
        The model, by split and subset as in ``metrics.json``: training, validation, test, then any others.
    baselines, single_bands : dict of str to dict of str to Scores
        The same for what the model is compared with.
    predictions : DataFrame
        ``image, split, subset, group, mos, predicted`` and one ``member:<name>`` column per member.
    cv_results, weights : DataFrame
        Empty where the run folder has none.
    receipt : dict
        As read.
    gmacs, params_m, budget_gmacs : float
        For one image; nan where unknown or unlimited.
    findings : list of dict
        ``check, level, sentence`` of each trust check, as ``fit`` left them; empty for runs without.
    intervals : dict
        The ``intervals`` of ``metrics.json``, empty for runs without.
    """

    path: Path
    scores: dict[str, Scores]
    baselines: dict[str, dict[str, Scores]]
    single_bands: dict[str, dict[str, Scores]]
    predictions: pd.DataFrame
    cv_results: pd.DataFrame
    weights: pd.DataFrame
    receipt: dict[str, Any]
    recipe_text: str
    gmacs: float
    params_m: float
    budget_gmacs: float
    is_simulation: bool
    findings: list[dict[str, Any]]
    intervals: dict[str, Any]

    @property
    def title(self) -> str:
        """Title of the recipe, else its name."""
        recipe = self.section("recipe")
        return str(recipe.get("title") or recipe.get("name") or "Run without a title")

    @property
    def random_bands(self) -> list[str]:
        """Bands whose networks had random weights, by the receipt."""
        return [
            str(row.get("band"))
            for row in self.rows("features")
            if str(row.get("weights")).startswith("RANDOM")
        ]

    @property
    def headline(self) -> str:
        """Key of the split the verdict speaks of: test, else validation, else out of fold on training."""
        return next(key for key in ("test", "validation", *self.scores) if key in self.scores)

    @property
    def headline_split(self) -> str:
        """Split of ``headline`` as ``predictions.csv`` spells it."""
        return "training" if self.headline == "training_cv" else self.headline.partition("/")[0]

    @property
    def mos_range(self) -> tuple[float, float] | None:
        """Nominal MOS scale of the dataset, if its reader knows one."""
        bounds = self.section("dataset").get("mos_range")
        if not isinstance(bounds, list) or len(bounds) != 2:
            return None
        low, high = (as_float(b) for b in bounds)
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None

    @property
    def regression(self) -> dict[str, Any]:
        """The recipe's ``[regression]`` table, empty where there is none that can be read."""
        try:
            table = tomllib.loads(self.recipe_text).get("regression")
        except tomllib.TOMLDecodeError:
            return {}
        return table if isinstance(table, dict) else {}

    @property
    def select_by(self) -> str:
        """Name of the metric that chose the hyper-parameters, ``score`` where the recipe does not say."""
        return str(self.regression.get("select_by", "score"))

    def section(self, name: str) -> dict[str, Any]:
        """One table of the receipt, empty where it has none."""
        value = self.receipt.get(name)
        return value if isinstance(value, dict) else {}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One list of tables of the receipt, empty where it has none."""
        value = self.receipt.get(name)
        return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []

    def scored(self, split: str) -> pd.DataFrame:
        """Rows of one split that have both a MOS and a prediction."""
        frame = self.predictions
        known = np.isfinite(frame["mos"]) & np.isfinite(frame["predicted"])
        return frame[(frame["split"] == split) & known]

    def grid_parameters(self) -> list[str]:
        """Columns of ``cv_results`` that hold hyper-parameters."""
        return [name for name in self.cv_results.columns if not _NOT_PARAMETERS.fullmatch(name)]


def mos_groups(frame: pd.DataFrame) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Known MOS by split and subset: ``(split, "", all of the split)``, then ``(split, subset, its part)``.

    Parameters
    ----------
    frame : DataFrame
        ``split``, ``subset`` and ``mos``; rows without MOS are passed over.
    """
    known = frame[np.isfinite(frame["mos"])]
    groups = []
    for split in dict.fromkeys([*SPLITS, *sorted(set(known["split"]))]):
        rows = known[known["split"] == split]
        if rows.empty:
            continue
        groups.append((split, "", rows["mos"].to_numpy(dtype=np.float64)))
        for subset in sorted(set(rows["subset"]) - {""}):
            groups.append(
                (split, subset, rows.loc[rows["subset"] == subset, "mos"].to_numpy(dtype=np.float64))
            )
    return groups


def as_float(value: object) -> float:
    """Turn a JSON number into a float, and null or anything else into nan."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


PREDICTION_COLUMNS = ("image", "split", "subset", "mos", "predicted")

MAX_CSV_BYTES = 1 << 33
"""Predictions of ten million images."""

_EMPTY = ("", "nan", "NaN")


def read_run(run: str | Path) -> RunData:
    """Read a run folder.

    Parameters
    ----------
    run : path
        Folder written by ``featbank fit``. ``metrics.json``, ``predictions.csv`` and ``receipt.json`` must be
        there; ``cv_results.csv`` and ``weights.csv`` may be absent.

    Raises
    ------
    RunError
        If a file is absent or does not hold what a run folder holds.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise RunError(f"report: expected a run folder, found none at {folder}. `featbank fit` writes one.")
    with telling_damage(folder):
        return _read_run(folder)


def _read_run(folder: Path) -> RunData:
    metrics = read_json(folder, METRICS)
    receipt = read_json(folder, RECEIPT)
    scores = _score_sets(metrics)
    if not scores:
        raise RunError(
            f"report: {folder / 'metrics.json'} must give the metrics of at least one split, such as 'test' or "
            f"'training_cv', got the keys {sorted(metrics)}. Run `featbank fit` again."
        )
    dataset = receipt.get("dataset")
    simulation = metrics.get("simulation") or (isinstance(dataset, dict) and dataset.get("simulation"))
    intervals = metrics.get("intervals")
    weights = _read_optional_csv(folder / "weights.csv")
    if "weight" in weights.columns and not pd.api.types.is_numeric_dtype(weights["weight"]):
        raise RunError(
            f"report: column 'weight' of {folder / 'weights.csv'} must hold numbers. Run `featbank fit` again."
        )
    recipe = receipt.get("recipe")
    return RunData(
        path=folder,
        scores=scores,
        baselines=_named_score_sets(metrics.get("baselines")),
        single_bands=_named_score_sets(metrics.get("single_bands")),
        predictions=_read_predictions(folder / "predictions.csv"),
        cv_results=_read_optional_csv(folder / "cv_results.csv"),
        weights=weights,
        receipt=receipt,
        recipe_text=str((recipe.get("text") if isinstance(recipe, dict) else None) or ""),
        gmacs=as_float(metrics.get("gmacs")),
        params_m=as_float(metrics.get("params_m")),
        budget_gmacs=as_float(metrics.get("budget_gmacs")),
        is_simulation=bool(simulation),
        findings=_read_findings(folder / "trust.json"),
        intervals=intervals if isinstance(intervals, dict) else {},
    )


def _score_sets(entries: Mapping[str, object]) -> dict[str, Scores]:
    return {key: scores for key, entry in entries.items() if (scores := _as_scores(entry)) is not None}


def _named_score_sets(entries: object) -> dict[str, dict[str, Scores]]:
    if not isinstance(entries, Mapping):
        return {}
    return {str(name): _score_sets(sets) for name, sets in entries.items() if isinstance(sets, Mapping)}


def _read_findings(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    findings = read_json(path.parent, path.name).get("findings")
    if not isinstance(findings, list):
        raise RunError(f"report: {path} must hold a list of findings. Run `featbank fit` again.")
    return [finding for finding in findings if isinstance(finding, dict)]


def _read_predictions(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise RunError(
            f"report: expected {path.name} in the run folder {path.parent}, found none. "
            "Give a folder that `featbank fit` has finished."
        )
    check_regular(path, MAX_CSV_BYTES, RunError)
    names = list(_read_csv(path, nrows=0))
    missing = [name for name in PREDICTION_COLUMNS if name not in names]
    if missing:
        raise RunError(
            f"report: {path} must have the columns {list(PREDICTION_COLUMNS)}, lacks {missing}. "
            "Run `featbank fit` again."
        )
    numbers = [name for name in names if name in {"mos", "predicted"} or str(name).startswith("member:")]
    texts = [*PREDICTION_COLUMNS[:3], *(["group"] if "group" in names else [])]
    # Numbers at once, and nothing that no one reads: a million rows of text take a gigabyte.
    frame = _read_csv(
        path,
        usecols=[*texts, *numbers],
        dtype={name: np.float64 if name in numbers else str for name in names},
        na_values={name: list(_EMPTY) for name in numbers},
    )
    known = frame["group"] if "group" in frame else pd.Series("", index=frame.index)
    frame["group"] = name_groups(known, frame["image"])
    return frame


def _read_optional_csv(path: Path) -> pd.DataFrame:
    if not path.is_file() or not path.stat().st_size:
        return pd.DataFrame()
    frame = _read_csv(path)
    for name in frame.columns:
        if name in {"member", "bands", "params"}:
            continue
        # A hyper-parameter may be a word (a kernel's name): such a column stays text.
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if bool((numbers.notna() | (frame[name] == "")).all()):
            frame[name] = numbers
    return frame


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401 - those of pandas
    try:
        # Text unless told otherwise: an image may be called "NA" or "007", which pandas would turn into something else.
        return pd.read_csv(path, **{"dtype": str, "keep_default_na": False} | options)
    except ValueError as error:
        raise RunError(
            f"report: {path} must be a CSV table, whose scores must hold numbers, got: {error}. "
            "Run `featbank fit` again."
        ) from error


def _as_scores(entry: object) -> Scores | None:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("n"), int)
        or not set(METRIC_NAMES) & set(entry)
    ):
        return None
    intervals = entry.get("ci95") or {}
    ci95 = {
        name: (as_float(bounds[0]), as_float(bounds[1]))
        for name, bounds in intervals.items()
        if isinstance(bounds, list) and len(bounds) == 2
    }
    values = {name: as_float(entry.get(name)) for name in METRIC_NAMES}
    return Scores(int(entry["n"]), values, ci95, str(entry.get("ci95_reason") or ""))
