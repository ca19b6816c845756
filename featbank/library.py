"""The library: what a notebook or a service needs of featbank, under the names of the package itself.

Everything here is made of the parts that the commands are made of, and gives the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from featbank import datasets
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.encoders import check_weights
from featbank.errors import DatasetError, EncoderError, ImageError, RunError, UnknownNameError
from featbank.extract import ExtractionSummary, FeatureRequest, extract, known_folder, open_folder
from featbank.feature import built, compute_features
from featbank.images import Source, read_photo
from featbank.keys import keys_of_files
from featbank.recipes.reading import IMPORTED_PREFIX, BandRequest, Recipe, RegressionRequest
from featbank.remote import Place
from featbank.report import figures
from featbank.report.page import photos_of, write_report
from featbank.report.style import Drawing, split_title
from featbank.runs.fit import FitOptions, fit_run, load_rows, resolve_bands
from featbank.runs.folder import read_json, read_run
from featbank.runs.model import build_ensemble, folds_of, n_crops_of
from featbank.runs.score import Scorer
from regressors.evaluation.comparison import compare_paired, holm
from regressors.evaluation.metrics import METRICS

__all__ = [
    "BandRequest",
    "Features",
    "FitOptions",
    "FrozenFeatures",
    "Recipe",
    "RegressionRequest",
    "Run",
    "Scorer",
    "ablate",
    "fit",
    "open_table",
    "read_dataset",
]

_LOG = logging.getLogger("featbank")


def read_dataset(path: str | Place, *, images: str | Place | None = None) -> ImageTable:
    """Read a dataset in a known layout, or an own table with columns ``path`` and ``mos``.

    Parameters
    ----------
    path : str or Path
        Folder or file; ``~`` is the home folder. Or the URL of one in an object store.
    images : str or Path, optional
        Folder of the images, if they do not lie beside the metadata.

    Returns
    -------
    ImageTable
        Its ``frame`` has a row for each image: ``image_id, path, mos, split, subset, group`` and ``meta:`` columns.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or its files contradict what its layout promises.
    """
    return datasets.read_dataset(_home(path), images=None if images is None else _home(images))


def _home(path: str | Place) -> str | Place:
    return str(Path(path).expanduser()) if isinstance(path, str) and path.startswith("~") else path


@dataclass(frozen=True)
class Features:
    """Features of rated images with what a model is fitted and judged by, row by row in the order of the names.

    Attributes
    ----------
    X : DataFrame of shape (n_images, n_features)
        float64; columns ``band:0000``, index ``image_id``.
    rows : DataFrame
        ``path, mos, split, subset, group`` and ``meta:`` columns of the same images, as a fit uses them: images
        without a MOS or without features are left out, a split is made where the dataset has none, and groups are
        filled in.
    notes : list of str
        What was left out, and how the split was made, in sentences.
    gmacs : dict of str to float
        Cost of each band for one image of 2160 x 3840 pixels; nan where an import did not state it.
    """

    X: pd.DataFrame
    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    gmacs: dict[str, float] = field(default_factory=dict)

    @property
    def y(self) -> NDArray[np.float64]:
        """MOS, shape (n_images,), on the dataset's own scale."""
        return self.rows["mos"].to_numpy(dtype=np.float64)

    @property
    def groups(self) -> NDArray[Any]:
        """Group of each image, such as its uploader, shape (n_images,); no fold may split one."""
        return self.rows["group"].to_numpy()

    @property
    def parts(self) -> dict[str, NDArray[np.bool_]]:
        """Rows by part, bool arrays of shape (n_images,).

        The splits ``training``, ``validation`` and ``test``; the subsets of each, such as ``test/exclusive``; and a
        subset over all splits but training, ``exclusive``. Parts without images are not there.
        """
        split, subset = self.rows["split"].to_numpy(), self.rows["subset"].to_numpy()
        found = {name: split == name for name in ("training", "validation", "test")}
        for name in sorted({*subset} - {""}):
            found |= {f"{part}/{name}": found[part] & (subset == name) for part in ("validation", "test")}
            found[name] = (split != "training") & (subset == name)
        return {name: rows for name, rows in found.items() if rows.any()}

    def part(self, name: str) -> NDArray[np.bool_]:
        """Return the rows of one of the `parts`; an UnknownNameError names those that there are."""
        parts = self.parts
        if name not in parts:
            raise UnknownNameError(f"part must be one of {', '.join(parts)}, got {name!r}.")
        return parts[name]


def open_table(
    data: ImageTable | str | Place,
    recipe: Recipe | str = "starter",
    bank: Bank | str | Place = "bank",
    *,
    workers: int | None = None,
    show_progress: bool = True,
) -> Features:
    """Compute the features that the bank lacks, and join all of a recipe to the opinions.

    Parameters
    ----------
    data : ImageTable, str or Path
        As `read_dataset` gives it, or what it takes.
    recipe : Recipe or str
        Or the name, or file, of one.
    bank : Bank, str or Path
        Where features are looked up and kept.
    workers : int or None
        Processes; None takes one for each processor.
    show_progress : bool
        Draw a bar on standard error, if it is a terminal.

    Returns
    -------
    Features

    Raises
    ------
    DatasetError, BankError, EncoderError, MissingFeaturesError, RecipeError
        If the data, the bank, weights, imported features or the recipe do not serve; each says what to do.
    """
    table, chosen, store = _opened(data, recipe, bank)
    _compute(table, chosen, store, workers, show_progress)
    bands = resolve_bands(store, table, chosen.bands)
    loaded = load_rows(table, bands, store, chosen.regression)
    X = cast(pd.DataFrame, loaded.table(loaded.rows))
    gmacs = {band.name: band.gmacs for band in bands}
    return Features(X, loaded.rows, [*table.notes, *loaded.left_out, *loaded.split], gmacs)


def _opened(
    data: ImageTable | str | Place, recipe: Recipe | str, bank: Bank | str | Place
) -> tuple[ImageTable, Recipe, Bank]:
    table = data if isinstance(data, ImageTable) else read_dataset(data)
    chosen = Recipe.read(recipe) if isinstance(recipe, str) else recipe.checked()
    return table, chosen, bank if isinstance(bank, Bank) else Bank(_home(bank))


def _compute(
    table: ImageTable, recipe: Recipe, bank: Bank, workers: int | None, show_progress: bool
) -> ExtractionSummary:
    """Compute what the bank lacks of a recipe."""
    requests = [
        FeatureRequest(band.encoder, band.view, band.aggregate)
        for band in recipe.bands
        if not band.encoder.startswith(IMPORTED_PREFIX)
    ]
    check_weights(r.encoder for r in requests if known_folder(bank, r) is None)
    images = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    return extract(images, requests, bank, workers=workers, show_progress=show_progress)


def fit(
    data: ImageTable | str | Place,
    recipe: Recipe | str = "starter",
    bank: Bank | str | Place = "bank",
    out: str | Path | None = None,
    *,
    options: FitOptions | None = None,
    show_progress: bool = True,
) -> Run:
    """Compute missing features, fit a recipe on the training rows, judge it on the others, and write a run folder.

    The folder is that of ``featbank fit``: model, predictions, metrics, receipt and report.

    Parameters
    ----------
    data, recipe, bank, show_progress
        As in `open_table`.
    out : str or Path, optional
        Run folder, ``runs/RECIPE`` by default; an earlier run there is replaced as a whole.
    options : FitOptions, optional
        Workers, memory, share of the test rows, permutations, intervals.

    Returns
    -------
    Run

    Raises
    ------
    RunError, OutputError
        If the rows cannot be fitted, or ``out`` holds anything else than an earlier run.
    DatasetError, BankError, EncoderError, MissingFeaturesError, RecipeError
        As `open_table`.
    """
    table, chosen, store = _opened(data, recipe, bank)
    if table.frame["mos"].isna().all():
        raise DatasetError(f"fit: no image of {table.name!r} has a MOS, so there is nothing to learn.")
    folder = Path(f"runs/{chosen.name}" if out is None else out).expanduser()
    used = options or FitOptions()
    _compute(table, chosen, store, used.workers, show_progress)
    fit_run(
        table,
        chosen,
        store,
        folder,
        used,
        write_report=lambda run: write_report(run, photos=photos_of(table), into=run),
        log=_LOG.info,
    )
    return Run(folder)


class Run:
    """What a fit left in its folder.

    Parameters
    ----------
    folder : str or Path
        Written by `fit` or ``featbank fit``.

    Attributes
    ----------
    folder : Path
    metrics : dict
        The content of ``metrics.json``: by part, as in ``metrics["test"]["srcc"]``, with ``ci95``, costs, baselines.
    predictions : DataFrame
        ``image, split, subset, group, mos, predicted``, its interval, and a column for each member.
    plot : Plots
        Figures.

    Raises
    ------
    RunError
        If a file is absent or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._data = read_run(self.folder)
        self.metrics = read_json(self.folder, "metrics.json")
        self.predictions = self._data.predictions
        self.plot = Plots(self)

    def __repr__(self) -> str:
        scores = self._data.scores[self._data.headline]
        kind = "SIMULATION, " if self._data.is_simulation else ""
        part = f"{scores.n} {self._data.headline} images"
        return f"Run({str(self.folder)!r}: {kind}SRCC {scores.metrics['srcc']:.3f} on {part})"

    def scorer(self) -> Scorer:
        """Load the run's model to score new images."""
        return Scorer.load(self.folder)

    def to_frame(self, metrics: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
        """Return the scores by part, with ``n`` and the ends of the 95 % interval of the SRCC where it has one."""
        rows = {}
        for name, scores in self._data.scores.items():
            low, high = scores.ci95.get("srcc", (np.nan, np.nan))
            known = {metric: scores.metrics[metric] for metric in metrics}
            rows[split_title(name)] = {"n": scores.n, **known, "srcc_low": low, "srcc_high": high}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("part")

    def to_latex(self, metrics: Sequence[str] = ("srcc", "plcc", "krcc", "rmse"), decimals: int = 3) -> str:
        """Write the scores by part as a LaTeX table (packages: booktabs); a caption says where it is a simulation."""
        frame = self.to_frame(metrics)[["n", *metrics]].rename(columns=str.upper).rename(columns={"N": "n"})
        caption = f"{self._data.title}." + (
            " Simulation: rendered photos, simulated raters." if self._data.is_simulation else ""
        )
        text: str = frame.reset_index().to_latex(
            index=False, escape=True, float_format=f"%.{decimals}f", caption=_escaped(caption), position="ht"
        )
        return text


def _escaped(text: str) -> str:
    """Write text as LaTeX shows it."""
    return "".join(f"\\{c}" if c in "&%$#_{}" else c for c in text)


class Plots:
    """The figures of a run, each a figure of matplotlib that `savefig` writes."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def scatter(self, split: str | None = None) -> Figure:
        """Draw predicted MOS against MOS; by default of the split that the report's verdict speaks of."""
        data = self._run._data
        return self._figure(figures.predicted_against_mos(data, split or data.headline_split))

    def mos(self) -> Figure:
        """Draw the densities of the MOS by split."""
        return self._figure(figures.mos_density(self._run._data))

    def shares(self) -> Figure:
        """Draw each band's share of the score."""
        return self._figure(figures.band_share_figure(self._run._data))

    def curve(self) -> Figure:
        """Draw the cross-validated score over the grid of hyper-parameters."""
        return self._figure(figures.cv_figure(self._run._data))

    def cost(self) -> Figure:
        """Draw the GMACs of each pass."""
        return self._figure(figures.cost_figure(self._run._data))

    def _figure(self, drawing: Drawing | None) -> Figure:
        if drawing is None:
            raise RunError(f"plot: {self._run.folder} holds nothing that this figure could show.")
        return drawing.figure


def ablate(
    table: Features,
    recipe: Recipe | str = "starter",
    parts: Sequence[str] = ("test",),
    *,
    metric: str = "srcc",
    n_resamples: int = 2000,
    workers: int | None = None,
) -> pd.DataFrame:
    """Drop each band, and add each to the strongest one, to see what it brings on photos that no model has seen.

    Each model is one regressor of the recipe's kind on the bands kept, fitted on the training rows with the recipe's
    folds and grid. The strongest band is the best single one in these folds. Models are compared on the same resamples
    of whole groups.

    Parameters
    ----------
    table : Features
        Of the recipe's bands, as `open_table` gives it.
    recipe : Recipe or str
    parts : sequence of str
        Of ``table.parts``, such as ``test`` and ``exclusive``.
    metric : str
        One of `regressors.METRICS`.
    n_resamples : int
        Of the paired bootstrap.
    workers : int or None
        Processes for the grid search; None takes one for each processor.

    Returns
    -------
    DataFrame
        A row for each part and band: ``part, kind, band, n``; the metric ``with_band`` and ``without``; ``gain``, by
        how much the band improves it, ``low`` and ``high``, the 95 % interval, ``p`` and ``p_holm``, corrected over
        the rows of a part. ``kind`` is ``drop`` (all bands against all others) or ``add`` (the strongest band and this
        one against the strongest alone).

    Raises
    ------
    UnknownNameError
        If a part is not there.
    RunError
        If the table lacks a band of the recipe, or the training rows cannot be cut into its folds.
    """
    chosen = Recipe.read(recipe) if isinstance(recipe, str) else recipe.checked()
    names = [band.name for band in chosen.bands]
    there = {column.rpartition(":")[0] for column in table.X.columns}
    if missing := [name for name in names if name not in there]:
        raise RunError(
            f"ablate: the table lacks the bands {', '.join(missing)}. Open it with the same recipe."
        )
    if len(names) < 2:
        raise RunError(f"ablate: recipe {chosen.name!r} has one band; there is nothing to drop.")
    masks = {part: table.part(part) for part in parts}
    training = table.part("training")
    folds = folds_of(chosen.regression, table.rows[training])
    n_crops = n_crops_of(chosen.bands) if chosen.regression.rows == "crops" else 1
    scored: dict[tuple[str, ...], tuple[float, NDArray[np.float64]]] = {}

    def model(*kept: str) -> tuple[float, NDArray[np.float64]]:
        """Fit one regressor on some bands; return its best cross-validated score and its predictions of all rows."""
        if kept not in scored:
            ensemble = build_ensemble(chosen.regression, folds, workers, [list(kept)], n_crops)
            ensemble.fit(table.X[training], table.y[training])
            best = float(ensemble.cv_results_["mean_test_score"].max())
            scored[kept] = best, ensemble.predict(table.X)
        return scored[kept]

    strongest = max(names, key=lambda name: model(name)[0])
    pairs = [("drop", name, tuple(names), tuple(n for n in names if n != name)) for name in names]
    pairs += [
        ("add", name, tuple(n for n in names if n in (strongest, name)), (strongest,))
        for name in names
        if name != strongest
    ]
    sign = -1.0 if metric in ("rmse", "mae") else 1.0
    tables = []
    for part, mask in masks.items():
        rows = []
        for kind, name, kept, less in pairs:
            predictions = {"with": model(*kept)[1][mask], "without": model(*less)[1][mask]}
            found = compare_paired(
                table.y[mask],
                predictions,
                metrics=[metric],
                groups=table.groups[mask],
                n_resamples=n_resamples,
            ).iloc[0]
            ends = sorted([sign * found["low"], sign * found["high"]])
            rows.append(
                {
                    "part": part,
                    "kind": kind,
                    "band": name,
                    "n": int(mask.sum()),
                    "with_band": found["first_value"],
                    "without": found["second_value"],
                    "gain": sign * found["difference"],
                    "low": ends[0],
                    "high": ends[1],
                    "p": found["p"],
                }
            )
        frame = pd.DataFrame(rows)
        tables.append(frame.assign(p_holm=holm(frame["p"].to_numpy())))
    return pd.concat(tables, ignore_index=True)


class FrozenFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images to the features of one encoder: a transformer without anything to learn.

    Parameters
    ----------
    encoder : str, default="classic:nss"
        As ``featbank list encoders`` names it.
    view : str, default="native"
        What it sees, as ``featbank list views`` names it.
    aggregate : str, default="mean"
        How the vectors of the view's crops become one: ``mean``, ``mean+std`` or ``concat``.
    bank : Bank, str, Path or None, default=None
        Keeps the features of files, so that folds and grids compute them once; None computes them each time.
    n_jobs : int or None, default=None
        Processes that compute what the bank lacks; None takes one for each processor. Without a bank one computes.

    Examples
    --------
    >>> import numpy as np
    >>> from featbank import FrozenFeatures
    >>> photos = np.random.default_rng(0).integers(0, 256, size=(3, 64, 96, 3), dtype=np.uint8)
    >>> FrozenFeatures("classic:nss").fit_transform(list(photos)).shape
    (3, 119)
    """

    def __init__(
        self,
        encoder: str = "classic:nss",
        view: str = "native",
        aggregate: str = "mean",
        bank: Bank | str | Place | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.encoder = encoder
        self.view = view
        self.aggregate = aggregate
        self.bank = bank
        self.n_jobs = n_jobs

    def fit(
        self, X: Iterable[Source] | ArrayLike | pd.DataFrame, y: ArrayLike | None = None
    ) -> FrozenFeatures:
        """Check encoder, view and aggregate; images are not looked at.

        Raises
        ------
        UnknownNameError, EncoderError, ViewError
            If the feature cannot be built, for lack of its weights too.
        """
        check_weights([self.encoder])
        built(self._request)
        return self

    @property
    def _request(self) -> FeatureRequest:
        return FeatureRequest(self.encoder, self.view, self.aggregate)

    def transform(self, X: Iterable[Source] | ArrayLike | pd.DataFrame) -> NDArray[np.float32]:
        """Compute, or read from the bank, the features of images.

        Parameters
        ----------
        X : sequence, or array or DataFrame of one column
            Paths, and without a bank also what else `featbank.images.read_photo` takes.

        Returns
        -------
        float32 array of shape (n_images, n_features)

        Raises
        ------
        ImageError
            If an image cannot be read: a transformer may leave out no row.
        EncoderError, ViewError
            If the encoder or the view gives nothing for it.
        TypeError
            If there is a bank and something else than paths.
        """
        images = _column(X)
        if self.bank is None:
            feature = built(self._request)
            rows = []
            for image in images:
                (found,), _ = compute_features([feature], read_photo(image))
                if isinstance(found, Exception):
                    raise found
                rows.append(found)
            return np.stack(rows) if rows else np.empty((0, feature.n_features), dtype=np.float32)
        other = next((image for image in images if not isinstance(image, str | Path)), None)
        if other is not None:
            raise TypeError(
                f"FrozenFeatures: a bank keeps features of files, got {type(other).__name__}. Give paths, or bank=None."
            )
        bank = self.bank if isinstance(self.bank, Bank) else Bank(_home(self.bank))
        paths = [str(image) for image in images]
        summary = extract([(path, path) for path in paths], [self._request], bank, workers=self.n_jobs)
        if summary.missing:
            raise ImageError("missing", f"FrozenFeatures: there is no readable file {summary.missing[0]!r}")
        if summary.failures:
            failure = summary.failures[0]
            kind = ImageError(failure["reason"], failure["message"])
            raise kind if failure["reason"] not in ("encoder", "view") else EncoderError(failure["message"])
        keys = cast(list[str], keys_of_files(paths, cache=bank.stat_cache))
        return open_folder(bank, self._request).read(keys)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Name the columns ``encoder@view.aggregate:0000``: one band, as `regressors` tells bands."""
        feature = built(self._request)
        return np.array([f"{feature.label}:{k:04d}" for k in range(feature.n_features)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - of a type that scikit-learn changes with its versions
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags


def _column(X: Iterable[Source] | ArrayLike | pd.DataFrame) -> list[Source]:
    """Return images as a list: a table of one column is that column."""
    if isinstance(X, pd.DataFrame):
        if X.shape[1] != 1:
            raise TypeError(
                f"FrozenFeatures: expected one column of images, got {X.shape[1]}. Choose one by a ColumnTransformer."
            )
        return list(X.iloc[:, 0])
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUST" and X.ndim == 2 and X.shape[1] == 1:
        return [str(path) if isinstance(path, np.str_) else path for path in X[:, 0]]
    if isinstance(X, str | bytes | Path):
        raise TypeError(
            f"FrozenFeatures: expected several images, got one {type(X).__name__}. Put it in a list."
        )
    return [str(path) if isinstance(path, np.str_) else path for path in cast(Iterable[Source], X)]
