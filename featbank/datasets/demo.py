"""Reads the built-in photo set: the UHD-IQA layout plus a marker that says it is a simulation."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from featbank.datasets import uhd_iqa
from featbank.datasets.image_table import ImageTable, Layout, Source
from featbank.datasets.text import read_text
from featbank.errors import DatasetError
from featbank.remote import Place

DEMO_MARKER = "featbank-demo.json"
SIMULATION_NOTE = (
    "Simulation: rendered scenes and simulated raters. Results on it show that the chain works; they prove nothing "
    "about real photos."
)


def read_demo(source: Source) -> ImageTable:
    """Read the photo set written by ``featbank demo``.

    Parameters
    ----------
    source : Source
        ``metadata`` is the marker file; the scores lie beside it in ``uhd-iqa-metadata.csv``.

    Returns
    -------
    ImageTable
        Named ``demo``, with ``is_simulation`` True and the seed in the notes.

    Raises
    ------
    DatasetNotFoundError
        If the marker is there, but not the metadata: the rendering was probably interrupted.
    DatasetError
        If the marker is not a JSON object, or the metadata are wrong.
    """
    settings = _read_marker(source.metadata)
    metadata = source.root / uhd_iqa.LAYOUT.markers[0]
    table = uhd_iqa.read_uhd_iqa(Source(metadata, source.root, source.images))
    shown = ", ".join(f"{name} {settings[name]!r}" for name in ("seed", "n", "version") if name in settings)
    notes = [
        SIMULATION_NOTE,
        f"Rendered with {shown}." if shown else "The marker does not say how it was rendered.",
    ]
    # What UHD-IQA says of its own size does not apply.
    own = [note for note in table.notes if not note.startswith("The release has")]
    if isinstance(settings.get("n"), int) and settings["n"] != table.n_images:
        own.append(f"The marker promises {settings['n']:,} images, the metadata list {table.n_images:,}.")
    return dataclasses.replace(
        table,
        name=LAYOUT.name,
        is_simulation=True,
        notes=(*notes, *own),
        licence=LAYOUT.licence,
        reference=LAYOUT.reference,
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


LAYOUT = Layout(
    name="demo",
    title="Built-in photo set (simulation)",
    n_images=None,
    licence="Apache-2.0, rendered by featbank",
    reference="featbank",
    mos_range=(0.0, 1.0),
    markers=(DEMO_MARKER,),
    header=frozenset(),
    read=read_demo,
)
