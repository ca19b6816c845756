"""The published datasets, one entry each: files, columns, scale, groups, splits.

A new dataset is one more `Release` in `RELEASES`. A package of one's own adds one by the entry point group
``featbank.datasets``, for example ``mine = "mypackage:MINE"`` where ``MINE`` is a `Release`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from featbank.datasets.distorted import DISTORTED
from featbank.datasets.image_table import META_PREFIX, ImageTable
from featbank.datasets.locate import ImageFinder
from featbank.datasets.photographed import PHOTOGRAPHED
from featbank.datasets.release import Columns, Range, Release, Source, mat_variable
from featbank.datasets.text import TextTable, read_delimited, read_text
from featbank.errors import DatasetError, DatasetNotFoundError, first_few
from featbank.remote import Place

GROUP = "featbank.datasets"
DEMO_MARKER = "featbank-demo.json"
SIMULATION_NOTE = (
    "Simulation: rendered scenes and simulated raters. Results on it show that the chain works; they prove nothing "
    "about real photos."
)

_LOG1P = ("views", "likes", "favorites", "downloads", "comments", "image_bytes")
_LOG = ("orig_width", "orig_height")


def _refine_uhd(table: TextTable, columns: Columns, notes: list[str]) -> None:
    """Add ``meta:log_*``: popularity and sizes, known without looking at a pixel; incomplete columns are left out."""
    if "subset" not in columns:
        notes.append("The metadata have no column 'subset': exclusive images cannot be told apart.")
    if "group" not in columns:
        notes.append(
            "The metadata have no column 'user_name': images of one uploader cannot be kept together."
        )
    for name in (*_LOG1P, *_LOG):
        if name not in table.columns:
            continue
        values = table.numbers(name)
        n_unknown = int(np.isnan(values).sum())
        if n_unknown:
            notes.append(f"Column {name!r} is empty for {n_unknown:,} image(s) and is left out.")
            continue
        lowest = 0.0 if name in _LOG1P else 1.0
        wrong = np.flatnonzero(values < lowest)
        if len(wrong):
            raise DatasetError(
                f"{table.path}: column {name!r} must be at least {lowest:g}, got {values[wrong[0]]:g} in line "
                f"{table.lines[wrong[0]]}."
            )
        columns[f"{META_PREFIX}log_{name}"] = np.log1p(values) if name in _LOG1P else np.log(values)


UHD_IQA = Release(
    name="uhd-iqa",
    title="UHD-IQA benchmark database",
    n_images=6073,
    licence="photos from Pixabay under CC0; terms of the scores at database.mmsp-kn.de",
    reference="Hosu, Agnolucci, Wiedemann, Iso, Saupe 2024, arXiv:2406.17472",
    mos_range=(0.0, 1.0),
    # The challenge gave out the last one, without ``subset`` and with training images alone.
    markers=(
        "uhd-iqa-metadata.csv",
        "uhd-iqa-metadata/uhd-iqa-metadata.csv",
        "uhd-iqa-training-metadata.csv",
    ),
    header=frozenset({"image_name", "quality_mos", "set"}),
    image="image_name",
    mos=("quality_mos",),
    # The challenge's archive wrapped the split folders into one more folder.
    folders=("{split}", "challenge/{split}", "."),
    split="set",
    subset="subset",
    group="user_name",
    required=("set",),
    refine=_refine_uhd,
)


class _Demo(Release):
    """The photo set written by ``featbank demo``: UHD-IQA's layout and a marker that says it is a simulation."""

    def read(self, source: Source) -> ImageTable:
        """Read the marker and the scores beside it."""
        settings = _read_marker(source.metadata)
        scores = source.root / UHD_IQA.markers[0]
        table = UHD_IQA.read(dataclasses.replace(source, metadata=scores))
        shown = ", ".join(f"{key} {settings[key]!r}" for key in ("seed", "n", "version") if key in settings)
        notes = [
            SIMULATION_NOTE,
            f"Rendered with {shown}." if shown else "The marker does not say how it was rendered.",
            # What UHD-IQA says of its own size does not apply.
            *(note for note in table.notes if not note.startswith("The release has")),
        ]
        if isinstance(settings.get("n"), int) and settings["n"] != table.n_images:
            notes.append(
                f"The marker promises {settings['n']:,} images, the metadata list {table.n_images:,}."
            )
        return dataclasses.replace(
            table,
            name=self.name,
            is_simulation=True,
            notes=tuple(notes),
            licence=self.licence,
            reference=self.reference,
        )


def _read_marker(path: Place) -> dict[str, Any]:
    text = read_text(path)
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} is not valid JSON ({error}). Render the set again with `featbank demo`."
        ) from error
    if not isinstance(settings, dict):
        raise DatasetError(f"{path} must hold a JSON object with seed, n and version, got {settings!r}.")
    return settings


DEMO = _Demo(
    name="demo",
    title="Built-in photo set (simulation)",
    n_images=None,
    licence="Apache-2.0, rendered by featbank",
    reference="featbank",
    mos_range=(0.0, 1.0),
    markers=(DEMO_MARKER,),
    image="",
    mos=(),
)


def _refine_koniq(table: TextTable, columns: Columns, notes: list[str]) -> Range | None:
    """Tell the scale: ``MOS_zscore`` of the earlier file is what the later one, with the split, calls ``MOS``."""
    if "split" not in columns:
        notes.append(
            "This file has no official split (column 'set'): use koniq10k_distributions_sets.csv to compare results."
        )
    if "MOS_zscore" in table.columns:
        notes.append(
            "MOS is the column 'MOS_zscore' (scale 1 to 100), as in the file with the official split."
        )
        return None
    mos = np.asarray(columns["mos"], dtype=np.float64)
    known = mos[np.isfinite(mos)]
    # The two scales overlap between 1 and 5, yet no copy of the data stays below 5 on the scale to 100.
    if not len(known) or known.max() > 5.0:
        return None
    notes.append("MOS is the mean of the five rating categories (scale 1 to 5).")
    return (1.0, 5.0)


# Images per level from which the direction of the scores can be told beyond doubt.
_MIN_PER_LEVEL = 10


def _refine_kadid(table: TextTable, columns: Columns, notes: list[str]) -> None:
    """Refuse scores that rise with the level of distortion, the last number of a name such as I01_10_05.png.

    The column ``dmos`` bears its name because raters saw the reference beside the image, yet higher is better
    (database.mmsp-kn.de/kadid-10k-database.html). A copy with a worse level 1 was turned already.
    """
    matches = [re.search(r"_0?([1-5])\.\w+$", str(name)) for name in columns["image_id"]]
    levels = np.array([int(match.group(1)) if match else 0 for match in matches])
    mos = np.asarray(columns["mos"], dtype=np.float64)
    least, most = (mos[(levels == level) & np.isfinite(mos)] for level in (1, 5))
    if min(len(least), len(most)) >= _MIN_PER_LEVEL and least.mean() <= most.mean():
        raise DatasetError(
            f"{table.path}: in KADID-10k's 'dmos' higher values mean higher quality, but here the strongest "
            f"distortions (mean {most.mean():.2f}) score above the weakest ({least.mean():.2f}). This copy "
            "seems to be turned; use the file of the release, or every result would have the wrong sign."
        )


N_RATER_TRAINING = 7
"""Images at the head of LIVE Challenge's list that only taught the raters their task; published results, too, leave
them out."""

_LIVE_SCORES, _LIVE_NAMES = "AllMOS_release", "AllImages_release"


def _read_live(source: Source) -> TextTable:
    """Read ``AllMOS_release.mat`` and the names beside it, which are matched by position."""
    path = source.metadata
    dtype, scores = mat_variable(path, _LIVE_SCORES)
    if np.dtype(dtype).kind not in "fiu":
        raise DatasetError(f"{path}: {_LIVE_SCORES!r} must hold numbers, got {dtype}.")
    names_file = ImageFinder(path.parent).entry(f"{_LIVE_NAMES}.mat")
    if names_file is None:
        raise DatasetNotFoundError(
            f"the LIVE Challenge scores at {path} need {_LIVE_NAMES}.mat beside them, which holds the names."
        )
    names = [str(value) for value in mat_variable(names_file, _LIVE_NAMES)[1]]
    if not all(names) or len(set(names)) != len(names):
        raise DatasetError(f"{names_file}: {_LIVE_NAMES!r} must hold one name per image, each once.")
    if len(names) != len(scores):
        raise DatasetError(
            f"{path} holds {len(scores)} scores, {names_file} holds {len(names)} names; they are matched by position "
            "and must come from one release."
        )
    if len(names) <= N_RATER_TRAINING:
        raise DatasetError(
            f"{names_file} must list more than the {N_RATER_TRAINING} images that trained the raters, got {len(names)}."
        )
    cells = [repr(score) for score in scores]
    columns = {"name": names[N_RATER_TRAINING:], "mos": cells[N_RATER_TRAINING:]}
    return TextTable(path, columns, range(N_RATER_TRAINING + 1, len(names) + 1))


_BIQ_LISTS = {"training": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


def _read_biq(source: Source) -> TextTable:
    """Read the lists of both splits; their errors name the file."""
    finder = ImageFinder(source.metadata.parent)
    columns: dict[str, list[str]] = {"name": [], "mos": [], "set": []}
    lines: list[int] = []
    for split, file in _BIQ_LISTS.items():
        path = finder.entry(file)
        if path is None:
            raise DatasetNotFoundError(
                f"BIQ2021 at {source.root} needs {file!r}, the list of its {split} images."
            )
        table = read_delimited(path)
        table.require(("Image Name", "MOS"))
        table.numbers("MOS")
        names = table.unique("Image Name")
        if both := set(names) & set(columns["name"]):
            raise DatasetError(
                f"{path}: an image must be in one split, got {first_few(sorted(both))} in training and test."
            )
        columns["name"] += names
        columns["mos"] += table.columns["MOS"]
        columns["set"] += [split] * len(names)
        lines += table.lines
    return TextTable(source.metadata, columns, lines)


RELEASES = (
    DEMO,
    UHD_IQA,
    Release(
        name="koniq-10k",
        title="KonIQ-10k",
        n_images=10073,
        licence="photos from YFCC100M under Creative Commons; terms at database.mmsp-kn.de",
        reference="Hosu, Lin, Sziranyi, Saupe 2020, IEEE TIP 29",
        mos_range=(1.0, 100.0),
        markers=(
            "koniq10k_distributions_sets.csv",
            "metadata/koniq10k_distributions_sets.csv",
            "koniq10k_scores_and_distributions.csv",
            "koniq10k_scores_and_distributions/koniq10k_scores_and_distributions.csv",
        ),
        header=frozenset({"image_name", "c1", "c5", "MOS"}),
        image="image_name",
        mos=("MOS_zscore", "MOS"),
        folders=("1024x768", "512x384", "images", "koniq10k_1024x768", "koniq10k_512x384", "."),
        split="set",
        has_sizes=True,
        refine=_refine_koniq,
    ),
    Release(
        name="spaq",
        title="SPAQ",
        n_images=11125,
        licence="educational and research use",
        reference="Fang, Zhu, Zeng, Ma, Wang 2020, CVPR",
        mos_range=(0.0, 100.0),
        # The release has the workbook; its export as CSV is preferred where both exist.
        markers=(
            "Annotations/MOS and Image attribute scores.csv",
            "Annotations/MOS and Image attribute scores.xlsx",
            "MOS and Image attribute scores.csv",
            "MOS and Image attribute scores.xlsx",
        ),
        header=frozenset({"Image name", "MOS", "Brightness", "Sharpness"}),
        image="Image name",
        mos=("MOS",),
        folders=("TestImage", "images", "."),
        notes=("SPAQ has no official split.",),
    ),
    Release(
        name="kadid-10k",
        title="KADID-10k",
        n_images=10125,
        licence="terms at database.mmsp-kn.de",
        reference="Lin, Hosu, Saupe 2019, QoMEX",
        mos_range=(1.0, 5.0),
        markers=("dmos.csv",),
        header=frozenset({"dist_img", "ref_img", "dmos"}),
        image="dist_img",
        mos=("dmos",),
        folders=("images", "distorted_images", "dist_imgs", "."),
        group="ref_img",
        required=("ref_img",),
        group_of=lambda name: PurePosixPath(name).stem.upper(),
        notes=(
            "The column 'dmos' is taken as MOS: in KADID-10k higher values mean higher quality.",
            "KADID-10k has no official split; split by group, the images of one reference share their content.",
        ),
        refine=_refine_kadid,
    ),
    Release(
        name="live-challenge",
        title="LIVE In the Wild Image Quality Challenge",
        n_images=1169 - N_RATER_TRAINING,
        licence="free to use and distribute with its copyright notice (University of Texas at Austin)",
        reference="Ghadiyaram, Bovik 2016, IEEE TIP 25",
        mos_range=(0.0, 100.0),
        markers=("Data/AllMOS_release.mat", "AllMOS_release.mat"),
        image="name",
        mos=("mos",),
        folders=("Images", "."),
        notes=(
            f"The first {N_RATER_TRAINING} images, which trained the raters, are left out.",
            "LIVE Challenge has no official split.",
        ),
        read_rows=_read_live,
    ),
    Release(
        name="biq2021",
        title="BIQ2021",
        n_images=12000,
        licence="none stated; the paper calls it freely available for use and benchmarking",
        reference="Ahmed, Asif 2022, Journal of Electronic Imaging 31(5)",
        mos_range=(0.0, 1.0),
        markers=tuple(_BIQ_LISTS.values()),
        image="name",
        mos=("mos",),
        folders=("Images", "."),
        split="set",
        notes=("BIQ2021 has no official validation split.",),
        read_rows=_read_biq,
    ),
    *DISTORTED,
    *PHOTOGRAPHED,
)


@cache
def known_releases() -> tuple[Release, ...]:
    """Return the published datasets of this package, then those that installed packages declare.

    Raises DatasetError if a declared one cannot be loaded, is no `Release`, or bears a name that is
    taken.
    """
    found = list(RELEASES)
    for point in metadata.entry_points(group=GROUP):
        try:
            release = point.load()
        except Exception as error:
            raise DatasetError(
                f"datasets: the plug-in {point.name!r} ({point.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}. Mend or uninstall its package."
            ) from error
        if not isinstance(release, Release) or release.name in {known.name for known in found}:
            raise DatasetError(
                f"datasets: the plug-in {point.name!r} ({point.value}) must be a featbank.datasets.Release with a name "
                f"of its own, got {getattr(release, 'name', release)!r}."
            )
        found.append(release)
    return tuple(found)
