"""Writes the page, the figures and the tables of one run folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from featbank.atomic import FolderKind, check_folder, replacing_files, replacing_folder
from featbank.datasets import ImageTable, read_dataset
from featbank.encoders import random_weights_note
from featbank.errors import FeatbankError
from featbank.report import summary
from featbank.report.drawing import DARK, LIGHT, Drawing, css_variables
from featbank.report.figures import (
    band_share_figure,
    comparison,
    cost_figure,
    curve_parameter,
    cv_figure,
    member_weights,
    mos_density,
    predicted_against_mos,
    short_parameter,
)
from featbank.report.summary import (
    METADATA_RIDGE,
    SIMULATION_NOTE,
    comparison_rows,
    coverage_rows,
    interval_sentence,
    predictors,
    split_rows,
    table_markdown,
    tables_csv,
    trust_rows,
    verdict_notes,
    word_verdict,
)
from featbank.report.wording import (
    METRIC_TITLES,
    count,
    number,
    plural,
    sentence_case,
    split_title,
)
from featbank.runs.folder import RECEIPT, kind_of, read_json, telling_damage, write_text
from featbank.runs.reading import METRIC_NAMES, RunData, read_run
from featbank.runs.trust import ALARM

# What a figure leaves room for beside it; tables.csv has all.
COMPARED = ("srcc", "plcc", "mae")
PAGE_NAME = "report.html"
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


def write_report(
    run: str | Path, *, photos: Mapping[str, str | Path] | None = None, into: Path | None = None
) -> Path:
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


def _write_files(run: RunData, photos: Mapping[str, str | Path] | None, folder: Path) -> None:
    figures = _figures(run)
    for drawing in figures.values():
        drawing.write_png(folder)
    write_text(folder / "tables.csv", tables_csv(run))
    write_text(folder / "table.md", table_markdown(run))
    write_text(folder / PAGE_NAME, render_page(run, figures, photos))


def render_page(
    run: RunData, figures: Mapping[str, Drawing], photos: Mapping[str, str | Path] | None = None
) -> str:
    """Render one run as a self-contained HTML document."""
    drawn = {name: drawing.markup() for name, drawing in figures.items()}
    return page_environment().get_template("run.html").render(_context(run, drawn, photos))


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
    return environment


def palette() -> dict[str, Markup]:
    """Give the colours of both themes as CSS custom properties."""
    return {"light": Markup(css_variables(LIGHT)), "dark": Markup(css_variables(DARK))}  # noqa: S704  our own


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


def _context(
    run: RunData, figures: Mapping[str, Markup], photos: Mapping[str, str | Path] | None
) -> dict[str, Any]:
    parameter = curve_parameter(run)
    checks = trust_rows(run)
    n_failures = len(run.rows("failures"))
    misses = summary.worst_misses(run, photos)
    return {
        "title": run.title,
        "facts": _facts(run, figures),
        "palette": palette(),
        "simulation_note": SIMULATION_NOTE if run.is_simulation else "",
        "alarms": [row for row in checks if row["level"] == ALARM],
        "trust_rows": checks,
        "has_findings": bool(run.findings),
        "interval_sentence": interval_sentence(run),
        "coverage_rows": coverage_rows(run),
        "random_note": random_weights_note(run.random_bands),
        "verdict": word_verdict(run),
        "verdict_notes": verdict_notes(run),
        "metric_titles": [METRIC_TITLES[name] for name in METRIC_NAMES],
        "headline": split_title(run.headline),
        "headline_split": run.headline_split,
        "comparison_titles": [METRIC_TITLES[name] for name in COMPARED],
        "comparison_rows": comparison_rows(run, COMPARED),
        "split_rows": split_rows(run),
        "has_metadata_ridge": run.headline in run.baselines.get(METADATA_RIDGE, {}),
        "run_notes": summary.run_notes(run),
        "has_training_cv": "training_cv" in run.scores,
        "has_intervals": any(scores.ci95 for scores in run.scores.values()),
        "scale_sentence": summary.scale_sentence(run),
        "figures": figures,
        "scatters": [(name, figures[name]) for name in FIGURE_NAMES[3:0:-1] if name in figures],
        "mos_rows": summary.mos_rows(run),
        "has_exclusive": bool((run.predictions["subset"] == "exclusive").any()),
        "share_sentence": summary.share_sentence(run),
        "band_rows": summary.band_rows(run),
        "member_rows": summary.member_rows(run),
        "n_members": len(member_weights(run)),
        "is_uniform": run.regression.get("combine") == "uniform",
        "select_by": run.select_by.upper(),
        "cv_parameter": short_parameter(parameter) if parameter else "",
        "grid_end_members": summary.grid_end_members(run, parameter) if parameter else [],
        "misses": misses,
        "has_thumbnails": any(miss.thumbnail.source for miss in misses),
        "n_failures": n_failures,
        "failures_title": plural(n_failures, "failure"),
        "failure_rows": summary.failure_rows(run),
        "failure_summary": summary.failure_summary(run),
        "cost_sentence": summary.cost_sentence(run),
        "pass_rows": summary.pass_rows(run),
        "time_rows": summary.time_rows(run),
        "licence_rows": summary.licence_rows(run),
        "recipe_text": run.recipe_text,
        "feature_digests": [
            (summary.spell_value(row.get("band")), summary.spell_value(row.get("digest")))
            for row in run.rows("features")
            if row.get("digest")
        ],
        "provenance": summary.provenance(run),
    }


def _facts(run: RunData, figures: Mapping[str, Markup]) -> list[tuple[str, str]]:
    facts = [
        ("dataset", str(run.section("dataset").get("name") or "not named")),
        ("images", summary.split_counts(run)),
    ]
    n_bands = len(summary.band_rows(run))
    if n_bands:
        facts.append(("bands", count(n_bands)))
    n_members = len(member_weights(run))
    if n_members:
        facts.append(("members", count(n_members)))
    if "cost" in figures:
        facts.append(("cost", f"{number(run.gmacs)} GMACs an image"))
    return facts


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
        Dataset for the thumbnails; None takes the place that the receipt names, if it is still there.
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
    dataset = read_json(run, RECEIPT).get("dataset")
    place = dataset.get("path") if isinstance(dataset, dict) else None
    table = None
    try:
        if data or (isinstance(place, str) and place):
            table = read_dataset(data or str(place))
    except FeatbankError:
        if data:
            raise
    with telling_damage(run):
        if out is None or not is_apart:
            return write_report_of(run, table)
        with replacing_folder(out, REPORT, "report --out") as folder:
            return out / write_report_of(run, table, folder).name


def write_report_of(run: Path, table: ImageTable | None, into: Path | None = None) -> Path:
    """Write the report of a run, with thumbnails.

    Parameters
    ----------
    table : ImageTable or None
        Where the photos lie; None for a report without thumbnails.
    into : Path or None
        A folder in the making; None for the run's own.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        If the folder is no run.
    OutputError
        If it cannot be written.
    """
    from featbank.report import write_report

    return write_report(run, photos=None if table is None else _Photos(table), into=into)


class _Photos(Mapping[str, str]):
    """Path of each image's photo; looked up in the table, as a page asks for a dozen of perhaps a million."""

    def __init__(self, table: ImageTable) -> None:
        self._images, self._paths = table.frame["image_id"], table.frame["path"]

    def __getitem__(self, image: str) -> str:
        [*found] = self._paths[self._images == image]
        if not found:
            raise KeyError(image)
        return str(found[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)
