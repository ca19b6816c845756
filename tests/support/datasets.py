"""Small datasets on disk in their published layouts, written by the tests themselves."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

UHD_HEADER = [
    "image_name",
    "quality_mos",
    "set",
    "subset",
    "orig_width",
    "orig_height",
    "views",
    "likes",
    "favorites",
    "downloads",
    "comments",
    "image_bytes",
    "user_name",
    "page_url",
    "image_name_orig",
]


CLASSIC_RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[[band]]
name = "keypoint"
encoder = "classic:keypoint"
view = "center_16"
[regression]
alpha = [1.0, 100.0]
cv = { kind = "kfold", n_splits = 3 }
"""
"""Two cheap weight-free bands that take the images of `write_image`."""


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """Write a small photo whose pixels depend on the seed; the ending decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}[path.suffix.lower()]
    Image.fromarray(pixels).save(path, kind)
    return path


def touch(path: Path) -> Path:
    """Make an empty file, folders included: enough for everything that only looks files up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_csv(
    path: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> Path:
    """Write a table with every text quoted, as the releases do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def uhd_row(
    name: str, mos: object, split: str, subset: str = "", user: str = "ann", views: object = 99
) -> list[object]:
    """One row of UHD-IQA metadata with all columns of the release."""
    url = f"https://pixabay.com/photos/{name}/"
    return [
        name,
        mos,
        split,
        subset,
        5515,
        3375,
        views,
        137,
        169,
        4670,
        0,
        2954877,
        user,
        url,
        f"orig-{name}",
    ]


def write_uhd(folder: Path, rows: Sequence[Sequence[object]], **options: str) -> Path:
    """Write UHD-IQA metadata into a dataset folder."""
    return write_csv(folder / "uhd-iqa-metadata.csv", UHD_HEADER, rows, **options)


def write_xlsx(
    path: Path, rows: Sequence[Sequence[object]], *, sheet: str = "sheet1.xml", title: str = "Scores"
) -> Path:
    """Write a workbook the way a spreadsheet program does: shared strings, numbers, nothing for empty cells."""
    strings: dict[str, int] = {}
    lines: list[str] = []
    for number, row in enumerate(rows, start=1):
        cells: list[str] = []
        for place, value in enumerate(row):
            reference = f"{column_letters(place)}{number}"
            if isinstance(value, str) and value:
                place_of = strings.setdefault(value, len(strings))
                cells.append(f'<c r="{reference}" t="s"><v>{place_of}</v></c>')
            elif value not in ("", None):
                cells.append(f'<c r="{reference}"><v>{value!r}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    shared = "".join(f"<si><t>{escape(text)}</t></si>" for text in strings)
    sheet_xml = f'<worksheet xmlns="{MAIN_NS}"><sheetData>{"".join(lines)}</sheetData></worksheet>'
    return write_workbook(path, sheet_xml, f'<sst xmlns="{MAIN_NS}">{shared}</sst>', sheet=sheet, title=title)


MAIN_NS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_REL_NS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE_NS = "http://schemas.openxmlformats.org/package/2006/relationships"


def write_workbook(
    path: Path, sheet_xml: str, strings_xml: str | None, *, sheet: str = "sheet1.xml", title: str = "Scores"
) -> Path:
    """Pack XML parts into a workbook whose first sheet is ``sheet``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{MAIN_NS}" xmlns:r="{_REL_NS}"><sheets><sheet name="{title}" sheetId="1" r:id="rId7"/>'
            "</sheets></workbook>",
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{_PACKAGE_NS}"><Relationship Id="rId7" Type="{_REL_NS}/worksheet" '
            f'Target="worksheets/{sheet}"/></Relationships>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_PACKAGE_NS}"><Relationship Id="rId1" Type="{_REL_NS}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
        archive.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}"/></Types>',
        )
        archive.writestr(f"xl/worksheets/{sheet}", sheet_xml)
        if strings_xml is not None:
            archive.writestr("xl/sharedStrings.xml", strings_xml)
    return path


def column_letters(place: int) -> str:
    """Spell a column counted from 0 as a spreadsheet does: A, B, ..., Z, AA."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
