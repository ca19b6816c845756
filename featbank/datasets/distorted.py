"""Datasets of distorted copies of reference images: the reference is the group, and a DMOS is turned once."""

from __future__ import annotations

import re
from itertools import product
from pathlib import PurePosixPath

from featbank.datasets.locate import ImageFinder, list_folder
from featbank.datasets.release import Release, Source, mat_variable, rows_of
from featbank.datasets.text import TextTable, read_delimited, read_text, read_workbook
from featbank.errors import DatasetError, DatasetNotFoundError
from featbank.remote import Place

_BY_REFERENCE = "{} has no official split; split by group, the images of one reference share their content."


def _read_tid(source: Source) -> TextTable:
    """Read lines such as ``5.51429 I01_01_1.bmp``, without a header."""
    path = source.metadata
    rows: list[tuple[str, str]] = []
    lines: list[int] = []
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        parts = text.split()
        if not parts:
            continue
        if len(parts) != 2 or "_" not in parts[1]:
            raise DatasetError(
                f"{path}: line {line} must hold a score and a name such as '5.51429 I01_01_1.bmp', got {text!r}."
            )
        rows.append((parts[0], parts[1]))
        lines.append(line)
    if not rows:
        raise DatasetError(f"{path} is empty, expected one line '5.51429 I01_01_1.bmp' per image.")
    scores, names = zip(*rows, strict=True)
    groups = [name.split("_")[0].upper() for name in names]
    return TextTable(path, {"mos": list(scores), "name": list(names), "reference": groups}, lines)


def _is_tid2008(path: Place) -> bool:
    """Tell the 17 types and 4 levels of TID2008 from the 24 and 5 of TID2013, whose file has the same name."""
    found = set(re.findall(r"_(\d\d)_(\d)\.", read_text(path)))
    return found == {(f"{kind:02d}", f"{level}") for kind, level in product(range(1, 18), range(1, 5))}


# How the type in the workbook is written as a folder, and in the name of an image.
_CSIQ_TYPES = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}


def _read_csiq(source: Source) -> TextTable:
    """Read the sheet by image, whose rows name reference, type and level; the image's name is made of them."""
    columns = ("image", "dst_type", "dst_lev", "dmos", "dmos_std")
    table = read_workbook(source.metadata, sheet="all_by_image", header=columns)
    kinds = table.words("dst_type", _CSIQ_TYPES)
    places = [_CSIQ_TYPES[kind] for kind in kinds]
    references = table.columns["image"]
    names = [
        f"{reference}.{kind}.{level}.png"
        for reference, (_, kind), level in zip(references, places, table.columns["dst_lev"], strict=True)
    ]
    own = {"name": names, "reference": references, "folder": [folder for folder, _ in places]}
    own |= {"dmos": table.columns["dmos"], "mos_std": table.columns["dmos_std"], "type": kinds}
    return rows_of(source.metadata, own, table.lines)


_LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def _read_live2(source: Source) -> TextTable:
    """Read the realigned DMOS, or those of the first release; the references among the rows are left out."""
    path = source.metadata
    names = [f"{folder}/img{i}.bmp" for folder, n in _LIVE_FOLDERS.items() for i in range(1, n + 1)]
    is_realigned = "realigned" in path.name.casefold()
    scores = mat_variable(path, "dmos_new" if is_realigned else "dmos")[1]
    columns = {"name": names, "dmos": [repr(score) for score in scores]}
    if is_realigned:
        columns["mos_std"] = [repr(value) for value in mat_variable(path, "dmos_std")[1]]
    references = mat_variable(_beside(path, "refnames_all.mat", "the LIVE scores"), "refnames_all")[1]
    columns["reference"] = [PurePosixPath(str(name)).stem for name in references]
    is_reference = mat_variable(path, "orgs")[1]
    lengths = {name: len(cells) for name, cells in (columns | {"orgs": is_reference}).items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise DatasetError(
            f"{path}: LIVE release 2 has {len(names)} images, got {told}. Copy the release again."
        )
    kept = [row for row, flag in enumerate(is_reference) if not flag]
    return rows_of(
        path, {name: [cells[row] for row in kept] for name, cells in columns.items()}, [i + 1 for i in kept]
    )


def _beside(path: Place, name: str, what: str) -> Place:
    found = ImageFinder(path.parent).entry(name)
    if found is None:
        raise DatasetNotFoundError(f"{what} at {path} need {name} beside them.")
    return found


_LIVE_MD_PARTS = {"Part 1": "blurjpeg", "Part 2": "blurnoise"}


def _read_live_md(source: Source) -> TextTable:
    """Read the scores of both parts, which are matched to the lists of images by position."""
    finder = ImageFinder(source.metadata.parents[1])
    columns: dict[str, list[str]] = {"name": [], "dmos": [], "reference": []}
    for part, folder in _LIVE_MD_PARTS.items():
        path = finder.entry(f"{part}/Scores.mat")
        if path is None:
            raise DatasetNotFoundError(f"LIVE-MD at {finder.base} needs {part}/Scores.mat.")
        names = [
            str(name) for name in mat_variable(_beside(path, "Imagelists.mat", "the scores"), "distimgs")[1]
        ]
        scores = mat_variable(path, "DMOSscores")[1]
        if len(names) != len(scores) or not all(names):
            raise DatasetError(
                f"{path} holds {len(scores)} scores for {len(names)} images, expected one each."
            )
        columns["name"] += [f"{part}/{folder}/{name}" for name in names]
        columns["dmos"] += [repr(score) for score in scores]
        columns["reference"] += [name.split("_")[0] for name in names]
    return rows_of(source.metadata, columns)


def _read_pipal(source: Source) -> TextTable:
    """Read a file of lines such as ``A0001_00_00.bmp,1520.0648`` for each reference, and those of validation."""
    finder = ImageFinder(source.metadata.parents[1])
    columns: dict[str, list[str]] = {"name": [], "mos": [], "reference": [], "set": []}
    for folder, split in (("Train_Label", "training"), ("Val_Label", "validation")):
        place = finder.entry(folder)
        names = [] if place is None else [entry.name for entry in list_folder(place)]
        for path in [place / name for name in names if place and name.casefold().endswith(".txt")]:
            for line, text in enumerate(read_text(path).splitlines(), start=1):
                name, comma, score = text.partition(",")
                if text.strip() and not (comma and "_" in name):
                    raise DatasetError(
                        f"{path}: line {line} must hold a name and a score such as 'A0001_00_00.bmp,1520.06', got "
                        f"{text[:60]!r}."
                    )
                if text.strip():
                    for key, cell in zip(columns, (name, score, name.split("_")[0], split), strict=True):
                        columns[key].append(cell.strip())
    if not columns["name"]:
        raise DatasetError(
            f"{source.metadata.parent} holds no score, expected lines such as 'A0001_00_00.bmp,1520.06'."
        )
    if len(set(columns["set"])) < 2:
        del columns["set"]
    return rows_of(source.metadata, columns)


def _read_kadis(source: Source) -> TextTable:
    """Name the five levels that are made of each reference, whose type stands beside it."""
    table = read_delimited(source.metadata)
    reference, kind = list(table.columns)[:2] if len(table.columns) > 1 else ("ref_im", "dist_type_1")
    table.require((reference, kind))
    kinds = table.numbers(kind)
    stems = [PurePosixPath(name).stem for name in table.columns[reference]]
    made = [
        (f"{stem}_{kind:02.0f}_{level:02d}.bmp", stem)
        for stem, kind in zip(stems, kinds, strict=True)
        for level in range(1, 6)
    ]
    lines = [line for line in table.lines for _ in range(5)]
    return rows_of(source.metadata, {"name": [n for n, _ in made], "reference": [s for _, s in made]}, lines)


DISTORTED = (
    Release(
        name="tid2013",
        title="TID2013",
        n_images=3000,
        licence="educational and research use",
        reference="Ponomarenko et al. 2015, Signal Processing: Image Communication 30",
        mos_range=(0.0, 9.0),
        markers=("mos_with_names.txt",),
        image="name",
        mos=("mos",),
        folders=("distorted_images", "images", "."),
        group="reference",
        notes=(_BY_REFERENCE.format("TID2013"),),
        read_rows=_read_tid,
        tells=lambda path: not _is_tid2008(path),
    ),
    Release(
        name="tid2008",
        title="TID2008",
        n_images=1700,
        licence="educational and research use",
        reference="Ponomarenko et al. 2009, Advances of Modern Radioelectronics 10",
        mos_range=(0.0, 9.0),
        markers=("mos_with_names.txt",),
        image="name",
        mos=("mos",),
        folders=("distorted_images", "images", "."),
        group="reference",
        notes=(_BY_REFERENCE.format("TID2008"),),
        read_rows=_read_tid,
        tells=_is_tid2008,
    ),
    Release(
        name="csiq",
        title="CSIQ",
        n_images=866,
        licence="research use",
        reference="Larson, Chandler 2010, Journal of Electronic Imaging 19(1)",
        mos_range=(0.0, 1.0),
        markers=("csiq.DMOS.xlsx",),
        image="name",
        mos=("dmos",),
        turned_at=1.0,
        folders=("dst_imgs/{folder}", "{folder}", "dst_imgs_all", "dst_imgs", "."),
        group="reference",
        notes=(_BY_REFERENCE.format("CSIQ"),),
        read_rows=_read_csiq,
    ),
    Release(
        name="live",
        title="LIVE Image Quality Assessment Database, release 2",
        n_images=779,
        licence="free to use with its copyright notice (University of Texas at Austin)",
        reference="Sheikh, Sabir, Bovik 2006, IEEE TIP 15(11)",
        mos_range=None,
        markers=("dmos_realigned.mat", "dmos.mat"),
        image="name",
        mos=("dmos",),
        turned_at=100.0,
        group="reference",
        notes=(
            _BY_REFERENCE.format("LIVE"),
            "The references among the images, whose DMOS is 0 by definition, are left out.",
        ),
        read_rows=_read_live2,
    ),
    Release(
        name="live-md",
        title="LIVE Multiply Distorted Image Quality Database",
        n_images=450,
        licence="free to use with its copyright notice (University of Texas at Austin)",
        reference="Jayaraman, Mittal, Moorthy, Bovik 2012, Asilomar",
        mos_range=(0.0, 100.0),
        markers=("Part 1/Scores.mat", "To_Release/Part 1/Scores.mat"),
        image="name",
        mos=("dmos",),
        turned_at=100.0,
        folders=(".", "To_Release"),
        group="reference",
        notes=(_BY_REFERENCE.format("LIVE-MD"),),
        read_rows=_read_live_md,
    ),
    Release(
        name="pipal",
        title="PIPAL",
        n_images=None,
        licence="research use",
        reference="Gu et al. 2020, ECCV",
        mos_range=None,
        markers=("Train_Label/A0001.txt", "train/Train_Label/A0001.txt"),
        image="name",
        mos=("mos",),
        folders=(
            *("Distortion_1", "Distortion_2", "Distortion_3", "Distortion_4"),
            *("Train_Dist", "Val_Dist", "Distortion", "Dist_Imgs", "train/Distortion", "train/Train_Dist"),
        ),
        is_scattered=True,
        split="set",
        group="reference",
        notes=(
            "MOS is the Elo score of the release: 23,200 training images of 200 references, and, where Val_Label is "
            "there, 1,000 validation images of 25.",
        ),
        read_rows=_read_pipal,
    ),
    Release(
        name="kadis-700k",
        title="KADIS-700k",
        n_images=700_000,
        licence="photos from Pixabay; terms at database.mmsp-kn.de",
        reference="Lin, Hosu, Saupe 2020, arXiv:2001.08113",
        mos_range=None,
        markers=("kadis700k_ref_imgs.csv",),
        image="name",
        mos=(),
        folders=("dist_imgs", "."),
        group="reference",
        read_rows=_read_kadis,
    ),
)
