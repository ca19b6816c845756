"""Writes the page, the figures and the tables of one run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from featbank.atomic import FolderKind, check_folder, replacing_files, replacing_folder
from featbank.datasets import ImageTable, read_dataset
from featbank.errors import FeatbankError
from featbank.report.figures import (
    band_share_figure,
    comparison,
    cost_figure,
    cv_figure,
    mos_density,
    predicted_against_mos,
)
from featbank.report.style import (
    DARK,
    LIGHT,
    Drawing,
    css_variables,
    make_thumbnail,
    sentence_case,
    split_title,
)
from featbank.report.summary import summarise, table_markdown
from featbank.report.tables import predictors, tables_csv
from featbank.runs.folder import RECEIPT, RunData, kind_of, read_json, read_run, telling_damage, write_text

PAGE_NAME = "report.html"
Photos: TypeAlias = Mapping[str, str | Path] | pd.Series
"""Path of each image's photo."""

_JOINTS = frozenset("/:_.+@")
_JOINT = re.compile(r"([/:_.+@])")
FIGURE_NAMES = (
    "comparison",
    "predicted_training",
    "predicted_validation",
    "predicted_test",
    "mos_density",
    "band_share",
    "cv_curve",
    "cost",
)


def write_report(run: str | Path, *, photos: Photos | None = None, into: Path | None = None) -> Path:
    """Write ``report.html``, the figures as PNG, ``tables.csv`` and ``table.md``.

    The same run folder gives the same bytes: the page holds no time of its own writing.

    Parameters
    ----------
    run : path
        Folder written by ``featbank fit``.
    photos : mapping of str to path, optional
        Where the photo of each image lies, for the thumbnails of the worst misses. Images it lacks, and files
        that are gone, are shown by a placeholder; None stands for a run without photos.
    into : Path or None
        A folder in the making; None for the run folder itself, where all files are replaced or none.

    Returns
    -------
    Path
        The page: one file, with no script and no address outside itself.

    Raises
    ------
    RunError
        If ``run`` is no folder that ``fit`` has finished.
    OutputError
        If it cannot be written.
    """
    data = read_run(run)
    if into is None:
        # Figures of an earlier writing may have lost their ground.
        gone = [f"{name}.png" for name in FIGURE_NAMES]
        with replacing_files(data.path, kind_of(data.path), "report", gone) as folder:
            _write_files(data, photos, folder)
        return data.path / PAGE_NAME
    _write_files(data, photos, into)
    return into / PAGE_NAME


def _write_files(run: RunData, photos: Photos | None, folder: Path) -> None:
    figures = _figures(run)
    for drawing in figures.values():
        drawing.write_png(folder)
    write_text(folder / "tables.csv", tables_csv(run))
    write_text(folder / "table.md", table_markdown(run))
    write_text(folder / PAGE_NAME, render_page(run, figures, photos))


def render_page(run: RunData, figures: Mapping[str, Drawing], photos: Photos | None = None) -> str:
    """Render one run as a self-contained HTML document."""
    summary = summarise(run)
    drawn = {name: drawing.markup() for name, drawing in figures.items()}
    misses = _thumbnails(summary["misses"], photos)
    page = page_environment().get_template("run.html")
    return page.render(
        summary
        | {
            "figures": drawn,
            "scatters": [(name, drawn[name]) for name in FIGURE_NAMES[3:0:-1] if name in drawn],
            "misses": misses,
            "has_thumbnails": any(miss["thumbnail"].source for miss in misses),
        }
    )


def page_environment() -> Environment:
    """Give the templates of this folder, where every text is escaped and a missing name is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sentence_case"] = sentence_case
    environment.filters["breakable"] = _breakable
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704  our own
    environment.globals["palette"] = {
        "light": Markup(css_variables(LIGHT)),  # noqa: S704
        "dark": Markup(css_variables(DARK)),  # noqa: S704
    }
    return environment


def _figures(run: RunData) -> dict[str, Drawing]:
    bars = [
        (
            name,
            scores.metrics["srcc"],
            *scores.ci95.get("srcc", (float("nan"), float("nan"))),
            kind == "model",
        )
        for name, kind, scores in predictors(run, run.headline)
    ]
    splits = [split for split in ("test", "validation") if not run.scored(split).empty] or ["training"]
    drawings = [
        comparison(bars[:16], split_title(run.headline)),
        *(predicted_against_mos(run, split) for split in splits),
        mos_density(run),
        band_share_figure(run),
        cv_figure(run),
        cost_figure(run),
    ]
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def _thumbnails(misses: list[dict[str, str]], photos: Photos | None) -> list[dict[str, Any]]:
    return [
        miss | {"thumbnail": make_thumbnail(None if photos is None else photos.get(miss["image"]))}
        for miss in misses
    ]


def _breakable(text: str) -> Markup:
    """Let a long name break after its own joints rather than in the middle of a word."""
    return Markup("").join(
        Markup("{}<wbr>").format(part) if part in _JOINTS else part for part in _JOINT.split(text)
    )


REPORT: Final = FolderKind("report")


def report_of_run(run: Path, data: str | None = None, out: Path | None = None) -> Path:
    """Write the report of an existing run again.

    Parameters
    ----------
    data : str or None
        Dataset for the thumbnails, read with the columns that the run was made with; None takes the place that the
        receipt names, if it is still there.
    out : Path or None
        Folder to write to; None for the run's own.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        If ``run`` is not a run folder.
    OutputError
        If ``out`` holds anything else than an earlier report, or cannot be written.
    FeatbankError
        If ``data`` is given and cannot be read.
    """
    is_apart = out is not None and out.resolve() != run.resolve()
    if out is not None and is_apart:
        check_folder(out, REPORT, "report --out")
    table = None
    try:
        with telling_damage(run):
            table = _dataset_of(read_json(run, RECEIPT), data)
    except FeatbankError:
        if data:
            raise
    with telling_damage(run):
        if out is None or not is_apart:
            return write_report(run, photos=photos_of(table))
        with replacing_folder(out, REPORT, "report --out") as folder:
            return out / write_report(run, photos=photos_of(table), into=folder).name


def _dataset_of(receipt: dict[str, Any], data: str | None) -> ImageTable | None:
    """Read the dataset of a run again as it was read for the run, or the one at ``data`` with the same columns."""
    dataset = receipt.get("dataset")
    dataset = dataset if isinstance(dataset, dict) else {}
    asked = {"path": dataset.get("path"), **dataset.get("asked", {})}
    if data:
        asked = {name: value for name, value in asked.items() if name != "images"} | {"path": data}
    return read_dataset(**asked) if asked["path"] and isinstance(asked["path"], str) else None


def photos_of(table: ImageTable | None) -> Photos | None:
    """Return the path of each image's photo, for the thumbnails of `write_report`; None without a table."""
    return None if table is None else table.frame.set_index("image_id")["path"]
