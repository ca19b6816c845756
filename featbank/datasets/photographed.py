"""Datasets of photographs, and of generated pictures, as they come: no references, faults of their own."""

from __future__ import annotations

import re

import numpy as np

from featbank.datasets.locate import ImageFinder
from featbank.datasets.release import Release, Source, rows_of
from featbank.datasets.text import TextTable, read_delimited, read_header, read_text, read_workbook
from featbank.errors import DatasetError
from featbank.remote import Place

# Browsers and systems leave out what a file's name may not hold.
_FLIVE_LEARNED = ("labels<=640_padded.csv", "labels=640_padded.csv", "labels_=640_padded.csv")
_FLIVE_TEST = ("labels>640.csv", "labels640.csv", "labels_640.csv")


def _read_flive(source: Source) -> TextTable:
    """Read the scores of whole photos, and their split from the two lists of PaQ-2-PiQ where both are there."""
    table = read_delimited(source.metadata)
    entry = ImageFinder(source.metadata.parent).entry
    lists = [[path for path in map(entry, names) if path] for names in (_FLIVE_LEARNED, _FLIVE_TEST)]
    found = [read_delimited(paths[0]) for paths in lists if paths]
    if len(found) < 2 or "name" not in table.columns:
        return table
    learned, test = found
    learned.require(("name_image", "is_valid"))
    test.require(("name_image",))
    flags = learned.words("is_valid", ("True", "False"))
    split = dict.fromkeys(test.columns["name_image"], "test")
    split |= {
        name: "validation" if flag == "True" else "training"
        for name, flag in zip(learned.columns["name_image"], flags, strict=True)
    }
    table.columns["set"] = [split.get(name, "training") for name in table.columns["name"]]
    return table


def _refine_flive(table: TextTable, columns: object, notes: list[str]) -> None:
    if "set" not in table.columns:
        notes.append(
            "Without labels<=640_padded.csv and labels>640.csv of PaQ-2-PiQ beside it, FLIVE has no official split."
        )


_AVA_TEST = "aesthetics_image_lists/generic_test.jpgl"


def _read_ava(source: Source) -> TextTable:
    """Read counts of the ratings 1 to 10; MOS is their mean. The list of test images gives the official split."""
    path = source.metadata
    rows = [text.split() for text in read_text(path).splitlines()]
    wrong = next(
        (i for i, row in enumerate(rows, 1) if row and (len(row) < 12 or not _is_counted(row))), None
    )
    if wrong is not None or not any(rows):
        raise DatasetError(
            f"{path}: line {wrong or 1} must hold an index, an image, ten counts of ratings (one of them not 0) and "
            "tags, as AVA.txt does."
        )
    lines = [line for line, row in enumerate(rows, start=1) if row]
    rows = [row for row in rows if row]
    counts = np.array([row[2:12] for row in rows], dtype=np.float64)
    n = counts.sum(axis=1)
    mean = counts @ np.arange(1, 11) / n
    spread = np.sqrt(np.maximum(counts @ np.arange(1, 11) ** 2 / n - mean**2, 0.0))
    columns = {
        "name": [f"{row[1]}.jpg" for row in rows],
        "mos": [repr(float(value)) for value in mean],
        "mos_std": [repr(float(value)) for value in spread],
        "n_ratings": [f"{value:.0f}" for value in n],
        "challenge": [row[14] if len(row) > 14 else "" for row in rows],
    }
    test = ImageFinder(path.parent).entry(_AVA_TEST)
    if test is not None:
        named = set(read_text(test).split())
        columns["set"] = ["test" if row[1] in named else "training" for row in rows]
    return rows_of(path, columns, lines)


def _is_counted(row: list[str]) -> bool:
    return all(cell.isdecimal() for cell in row[2:12]) and any(int(cell) for cell in row[2:12])


def _read_bid(source: Source) -> TextTable:
    """Read numbers of images and their mean grades, the first two columns of the first sheet."""
    table = read_workbook(source.metadata)
    if len(table.columns) < 2:
        raise DatasetError(
            f"{source.metadata} must hold the number of each image and its mean grade, got the columns "
            f"{', '.join(map(repr, table.columns))}."
        )
    number, grade = list(table.columns)[:2]
    numbers = table.numbers(number)
    if np.isnan(numbers).any():
        raise DatasetError(f"{source.metadata}: column {number!r} must name every image by its number.")
    names = [f"DatabaseImage{value:04.0f}.JPG" for value in numbers]
    return rows_of(source.metadata, {"name": names, "mos": table.columns[grade]}, table.lines)


_CID_NAME = re.compile(r"IS_([IV]+)_C(\d+)", re.IGNORECASE)
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}
_CID_BOOK = "CID2013 data - version 12112014.xlsx"


def _read_cid(source: Source) -> TextTable:
    """Read the realigned MOS; the first parts of a name such as IS_I_C01_D01 are set and scene, the last the camera."""
    table = read_workbook(source.metadata, sheet="CID2013 MOS", header=("Source_ID", "Realigned MOS"))
    names = table.columns["Source_ID"]
    own = {
        "name": [name if name.casefold().endswith(".jpg") else f"{name}.jpg" for name in names],
        "mos": table.columns["Realigned MOS"],
        "scene": [name.rpartition("_")[0] for name in names],
    }
    parts = [_CID_NAME.fullmatch(name) for name in own["scene"]]
    own["folder"] = [
        f"IS{_ROMAN.get(part[1].upper(), part[1])}/co{int(part[2])}" if part else "" for part in parts
    ]
    return rows_of(source.metadata, own, table.lines)


_AGIQA_HEADER = frozenset({"name", "prompt", "mos_quality", "mos_align"})


def _is_agiqa(path: Place) -> bool:
    return read_header(path) >= _AGIQA_HEADER


PHOTOGRAPHED = (
    Release(
        name="flive",
        title="FLIVE (PaQ-2-PiQ)",
        n_images=39810,
        licence="terms at github.com/niu-haoran/FLIVE_Database",
        reference="Ying, Niu, Gupta, Mahajan, Ghadiyaram, Bovik 2020, CVPR",
        mos_range=(0.0, 100.0),
        markers=("labels_image.csv", "database/labels_image.csv"),
        image="name",
        mos=("mos",),
        folders=(".", "database"),
        split="set",
        read_rows=_read_flive,
        refine=_refine_flive,
    ),
    Release(
        name="ava",
        title="AVA",
        n_images=255530,
        licence="photos of dpchallenge.com, research use",
        reference="Murray, Marchesotti, Perronnin 2012, CVPR",
        mos_range=(1.0, 10.0),
        markers=("AVA.txt", "AVA_dataset/AVA.txt"),
        image="name",
        mos=("mos",),
        folders=("images", "image", "ava_images", "."),
        split="set",
        notes=(
            "MOS is the mean of the ratings 1 to 10, which are of aesthetics.",
            f"Images of {_AVA_TEST}, where it is there, are the official test images, all others teach.",
        ),
        read_rows=_read_ava,
    ),
    Release(
        name="agiqa-3k",
        title="AGIQA-3K",
        n_images=2982,
        licence="MIT",
        reference="Li et al. 2023, IEEE TCSVT, arXiv:2306.04717",
        mos_range=(0.0, 5.0),
        markers=("data.csv",),
        header=_AGIQA_HEADER,
        image="name",
        mos=("mos_quality",),
        folders=("AGIQA-3K", "images", "."),
        group="prompt",
        notes=(
            "MOS is the column 'mos_quality'; --mos mos_align takes how well a picture fits its prompt.",
            "AGIQA-3K has no official split; the images of one prompt are a group.",
        ),
        tells=_is_agiqa,
    ),
    Release(
        name="bid",
        title="BID",
        n_images=586,
        licence="research use",
        reference="Ciancio et al. 2011, IEEE TIP 20(1)",
        mos_range=(0.0, 5.0),
        markers=("DatabaseGrades.xlsx", "DatabaseGrades.xls"),
        image="name",
        mos=("mos",),
        folders=("ImageDatabase", "images", "."),
        notes=("BID has no official split.",),
        read_rows=_read_bid,
    ),
    Release(
        name="cid2013",
        title="CID2013",
        n_images=474,
        licence="research use",
        reference="Virtanen, Nuutinen, Vaahteranoksa, Oittinen, Häkkinen 2015, IEEE TIP 24(1)",
        mos_range=(0.0, 100.0),
        markers=(_CID_BOOK,),
        image="name",
        mos=("mos",),
        folders=("{folder}", "."),
        group="scene",
        notes=(
            "MOS is the realigned one, on one scale for all six image sets.",
            "CID2013 has no official split; split by group, the photos of one scene of one image set.",
        ),
        read_rows=_read_cid,
    ),
)
