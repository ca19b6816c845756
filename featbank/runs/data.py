"""What the report knows of one run, in memory; reads no files and words nothing."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

METRIC_NAMES = ("srcc", "plcc", "plcc_logistic", "krcc", "mae", "rmse")
SPLITS = ("training", "validation", "test")

_NOT_PARAMETERS = re.compile(r"member|params|(rank|mean|std|split\d+)(_.*)?")


@dataclass(frozen=True)
class Scores:
    """Metrics of one predictor on one split or subset.

    Attributes
    ----------
    n : int
        Images behind the numbers.
    values : dict of str to float
        One entry for each of ``METRIC_NAMES``; nan where the run gives none, as the SRCC of a constant.
    ci95 : dict of str to (float, float)
        Bootstrap intervals, for the metrics that have one.
    ci95_reason : str
        Why there are none, if they were withheld.
    """

    n: int
    values: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    ci95_reason: str = ""

    def low(self, metric: str) -> float:
        """Lower end of a metric's 95 % interval, nan where it has none."""
        return self.ci95.get(metric, (math.nan, math.nan))[0]


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
