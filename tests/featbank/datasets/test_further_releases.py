"""Releases as their authors gave them out, written by the tests: counts, splits, groups, directions, places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.io import savemat

from featbank.datasets import ImageTable, check_dataset, read_dataset
from featbank.datasets.releases import known_releases
from featbank.errors import DatasetError, DatasetNotFoundError
from tests.support.datasets import touch, write_csv, write_xlsx


class Case(NamedTuple):
    """How a release is written, and what the reader must find in it.

    ``first`` is the first image with its MOS and its group, and where its file lies; ``said`` stands in a note.
    """

    write: Callable[[Path], object]
    counts: dict[str, int]
    n_groups: int
    first: tuple[str, float, str]
    place: str
    said: str


def cells(values: list[str], *, is_row: bool = False) -> np.ndarray:
    """A MATLAB cell of strings, upright unless it is a row."""
    cell = np.empty((1, len(values)) if is_row else (len(values), 1), dtype=object)
    cell[:] = np.array(values, dtype=object).reshape(cell.shape)
    return cell


def write_tid2008(folder: Path) -> None:
    names = [
        f"I{i:02d}_{kind:02d}_{level}.bmp"
        for i in range(1, 26)
        for kind in range(1, 18)
        for level in range(1, 5)
    ]
    (folder / "mos_with_names.txt").write_text(
        "".join(f"{5.9706 - k / 1000:.4f} {name}\n" for k, name in enumerate(names))
    )


CSIQ = [("noise", 5), ("jpeg", 5), ("jpeg 2000", 5), ("fnoise", 5), ("blur", 5), ("contrast", 4)]


def write_csiq(folder: Path) -> None:
    title = [[""], ["", "", "", "CSIQ"], [""]]
    rows = [
        ["", "", "", 1600 + i, k + 1, kind, level, 0.061, 0.062 + level / 10]
        for i in range(30)
        for k, (kind, n) in enumerate(CSIQ)
        for level in range(1, n + 1)
        # Four levels of one type are missing, which ones differs between the references.
        if not (i >= 26 and kind == "fnoise" and level == 5)
    ]
    header = ["", "", "", "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    write_xlsx(folder / "csiq.DMOS.xlsx", [*title, header, *rows], title="all_by_image")


LIVE = {"jp2k": (227, 58), "jpeg": (233, 58), "wn": (174, 29), "gblur": (174, 29), "fastfading": (174, 29)}


def write_live(folder: Path, name: str = "dmos_realigned.mat", scores: str = "dmos_new") -> None:
    orgs = [int(i >= n - n_org) for n, n_org in LIVE.values() for i in range(n)]
    dmos = [0.0 if org else 15.5 + (k % 90) for k, org in enumerate(orgs)]
    own = {scores: np.array([dmos]), "orgs": np.array([orgs], dtype=np.uint8)}
    savemat(folder / name, own | {"dmos_std": np.ones((1, 982))} if scores == "dmos_new" else own)
    names = [f"ref{k % 29}.bmp" for k in range(982)]
    savemat(folder / "refnames_all.mat", {"refnames_all": cells(names, is_row=True)})


def write_live_md(folder: Path) -> None:
    for part, kind in (("Part 1", "jpeg"), ("Part 2", "noise")):
        place = folder / part
        place.mkdir(parents=True)
        names = [f"scene{i}_{'blur1_' * (j > 0)}{kind}{j}.bmp" for i in range(15) for j in range(15)]
        savemat(place / "Imagelists.mat", {"distimgs": cells(names), "refimgs": cells(["scene0.bmp"])})
        savemat(place / "Scores.mat", {"DMOSscores": np.array([[21.5789 + k / 10 for k in range(225)]])})


def write_pipal(folder: Path) -> None:
    for i in range(200):
        lines = [f"A{i + 1:04d}_{k // 29:02d}_{k % 29:02d}.bmp,{1520.0648 - k}" for k in range(116)]
        touch(folder / "Train_Label" / f"A{i + 1:04d}.txt").write_text("\r\n".join(lines))
    for i in range(25):
        lines = [f"A{i + 201:04d}_00_{k:02d}.bmp,{1400.5 + k}" for k in range(40)]
        touch(folder / "Val_Label" / f"A{i + 201:04d}.txt").write_text("\n".join(lines))


def write_flive(folder: Path) -> None:
    names = [f"voc_emotic_ava/p{i:05d}.jpg" for i in range(39_810)]
    write_csv(folder / "labels_image.csv", ["name", "mos"], [[name, 75.5] for name in names])
    learned = [[name, str(i >= 30_253)] for i, name in enumerate(names[:38_004])]
    write_csv(folder / "labels<=640_padded.csv", ["name_image", "is_valid"], learned)
    write_csv(
        folder / "labels>640.csv", ["name_image", "mos_image"], [[name, 75.5] for name in names[38_004:]]
    )


def write_ava(folder: Path, n: int = 300) -> None:
    counts = "0 1 5 17 38 36 15 6 5 1"
    lines = [f"{i + 1} {953_619 + i} {counts} 1 22 {1396 + i % 3}" for i in range(n)]
    (folder / "AVA.txt").write_text("\n".join(lines) + "\n")
    ids = "".join(f"{953_619 + i}\n" for i in range(n - 20, n))
    touch(folder / "aesthetics_image_lists/generic_test.jpgl").write_text(ids)


def write_agiqa(folder: Path) -> None:
    header = ["name", "prompt", "adj1", "adj2", "style"]
    header += ["mos_quality", "std_quality", "mos_align", "std_align"]
    rows = [[f"sd_{k:04d}.jpg", f"prompt {k % 300}", "", "", "", 0.97, 0.22, 0.41, 0.62] for k in range(2982)]
    write_csv(folder / "data.csv", header, rows)


def write_bid(folder: Path) -> None:
    rows = [[k, 2.5 + k / 1000, "", 3] for k in range(1, 587)]
    header = ["Image Number", "Average Subjective Grade", "", "User 1"]
    write_xlsx(folder / "DatabaseGrades.xlsx", [header, *rows], title="Plan1")


def write_cid(folder: Path) -> None:
    sets = ["I", "II", "III", "IV", "V", "VI"]
    rows = [
        [f"IS_{sets[k % 6]}_C{k // 6 % 8 + 1:02d}_D{k // 48 + 1:02d}", k, 3.34 + k / 10] for k in range(474)
    ]
    book = folder / "CID2013 data - version 12112014.xlsx"
    write_xlsx(book, [["Source_ID", "Number", "Realigned MOS"], *rows], title="CID2013 MOS")


CASES = {
    "tid2008": Case(
        write_tid2008,
        {"no split": 1700},
        25,
        ("I01_01_1.bmp", 5.9706, "I01"),
        "distorted_images/I01_01_1.bmp",
        "no official split",
    ),
    "csiq": Case(
        write_csiq,
        {"no split": 866},
        30,
        ("1600.AWGN.1.png", 1 - 0.162, "1600"),
        "dst_imgs/AWGN/1600.AWGN.1.png",
        "MOS is 1 minus the DMOS",
    ),
    "live": Case(
        write_live,
        {"no split": 779},
        29,
        ("jp2k/img1.bmp", 84.5, "ref0"),
        "jp2k/img1.bmp",
        "MOS is 100 minus",
    ),
    "live-md": Case(
        write_live_md,
        {"no split": 450},
        15,
        ("Part 1/blurjpeg/scene0_jpeg0.bmp", 100 - 21.5789, "scene0"),
        "Part 1/blurjpeg/scene0_jpeg0.bmp",
        "MOS is 100 minus",
    ),
    "pipal": Case(
        write_pipal,
        {"training": 23_200, "validation": 1_000},
        225,
        ("A0001_00_00.bmp", 1520.0648, "A0001"),
        "Distortion_1/A0001_00_00.bmp",
        "Elo",
    ),
    "flive": Case(
        write_flive,
        {"training": 30_253, "validation": 7_751, "test": 1_806},
        0,
        ("voc_emotic_ava/p00000.jpg", 75.5, ""),
        "voc_emotic_ava/p00000.jpg",
        "",
    ),
    "ava": Case(
        write_ava,
        {"training": 280, "test": 20},
        0,
        ("953619.jpg", 699 / 124, ""),
        "images/953619.jpg",
        "The release has 255,530 images, this copy lists 300.",
    ),
    "agiqa-3k": Case(
        write_agiqa,
        {"no split": 2982},
        300,
        ("sd_0000.jpg", 0.97, "prompt 0"),
        "AGIQA-3K/sd_0000.jpg",
        "mos_quality",
    ),
    "bid": Case(
        write_bid,
        {"no split": 586},
        0,
        ("DatabaseImage0001.JPG", 2.501, ""),
        "ImageDatabase/DatabaseImage0001.JPG",
        "no official split",
    ),
    "cid2013": Case(
        write_cid,
        {"no split": 474},
        48,
        ("IS_I_C01_D01.jpg", 3.34, "IS_I_C01"),
        "IS1/co1/IS_I_C01_D01.jpg",
        "realigned",
    ),
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, ImageTable]]:
    """Write a release, once, with its first image; return its folder and its table."""
    made: dict[str, tuple[Path, ImageTable]] = {}

    def give(name: str) -> tuple[Path, ImageTable]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            CASES[name].write(folder)
            touch(folder / CASES[name].place)
            made[name] = folder, read_dataset(folder)
        return made[name]

    return give


@pytest.mark.parametrize("name", CASES)
def test_counts_splits_and_groups_are_those_of_the_release(name: str, read: Callable) -> None:
    folder, table = read(name)
    case = CASES[name]
    assert table.name == name
    assert table.counts() == case.counts
    assert len(set(table.frame["group"]) - {""}) == case.n_groups
    assert any(case.said in note for note in table.notes) or not case.said
    # Nothing is said of counts where all images of the release are there.
    assert name == "ava" or not any(note.startswith("The release has") for note in table.notes)
    image, mos, group = case.first
    row = table.frame.iloc[0]
    assert (row["image_id"], row["group"]) == (image, group)
    assert row["mos"] == pytest.approx(mos, abs=1e-9)
    assert row["path"] == str(folder / case.place)


@pytest.mark.parametrize("name", CASES)
def test_check_reads_it_by_its_metadata_file_too(name: str, read: Callable) -> None:
    folder, table = read(name)
    release = next(release for release in known_releases() if release.name == name)
    again = read_dataset(folder / release.markers[0])
    assert again.frame.equals(table.frame)
    document = check_dataset(table, decode=False, workers=1)
    assert document["name"] == name


def test_weights_of_the_release_can_be_asked_for(read: Callable) -> None:
    for name, kind in (("csiq", "mos_std"), ("live", "mos_std"), ("ava", "mos_std"), ("ava", "n_ratings")):
        table = read(name)[1]
        weights = table.weights(kind, list(table.frame["image_id"][:10]))
        assert weights.shape == (10,)
        assert weights.mean() == pytest.approx(1)


def test_live_has_earlier_scores_where_the_realigned_ones_are_missing(tmp_path: Path) -> None:
    write_live(tmp_path, "dmos.mat", "dmos")
    table = read_dataset(tmp_path)
    assert (table.name, table.n_images) == ("live", 779)
    assert table.frame["mos"].iloc[0] == 84.5


def test_tid2013_and_tid2008_are_told_apart_by_their_rows(tmp_path: Path) -> None:
    names = [f"I01_{kind:02d}_{level}.bmp" for kind in range(1, 25) for level in range(1, 6)]
    (tmp_path / "mos_with_names.txt").write_text("".join(f"5.5 {name}\n" for name in names))
    assert read_dataset(tmp_path).name == "tid2013"
    write_tid2008(tmp_path)
    assert read_dataset(tmp_path / "mos_with_names.txt").name == "tid2008"


def test_kadis_has_no_mos(tmp_path: Path) -> None:
    rows = [[f"p{i}.png", i % 25 + 1, 3] for i in range(100)]
    write_csv(tmp_path / "kadis700k_ref_imgs.csv", ["ref_im", "dist_type_1", "dist_type_2"], rows)
    touch(tmp_path / "dist_imgs/p0_01_05.bmp")
    table = read_dataset(tmp_path)
    assert (table.name, table.n_images, len(set(table.frame["group"]))) == ("kadis-700k", 500, 100)
    assert table.frame["mos"].isna().all()
    assert table.frame["path"].iloc[4] == str(tmp_path / "dist_imgs/p0_01_05.bmp")
    assert (
        "KADIS-700k has no scores: its images can be scored, but nothing can be fitted on them."
        in table.notes
    )


def test_a_common_file_name_alone_makes_no_release(tmp_path: Path) -> None:
    write_csv(tmp_path / "data.csv", ["path", "mos"], [["a.jpg", 1.0], ["b.jpg", 2.0]])
    with pytest.raises(DatasetNotFoundError, match=r"Not read: data\.csv"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path / "data.csv").name == "csv:data"


def test_flive_and_ava_without_their_lists_have_no_split(tmp_path: Path) -> None:
    (tmp_path / "flive").mkdir()
    write_csv(tmp_path / "flive/labels_image.csv", ["name", "mos"], [["a/b.jpg", 50.0]])
    assert any("no official split" in note for note in read_dataset(tmp_path / "flive").notes)
    (tmp_path / "ava").mkdir()
    write_ava(tmp_path / "ava")
    (tmp_path / "ava/aesthetics_image_lists/generic_test.jpgl").unlink()
    assert read_dataset(tmp_path / "ava").counts() == {"no split": 300}


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("ava", lambda f: (f / "AVA.txt").write_text("1 2 3\n"), "line 1 must hold an index"),
        ("ava", lambda f: (f / "AVA.txt").write_text("1 2 " + "0 " * 13 + "\n"), "one of them not 0"),
        ("live", lambda f: (f / "refnames_all.mat").unlink(), "need refnames_all.mat"),
        ("live", lambda f: savemat(f / "dmos_realigned.mat", {"dmos_new": [1.0]}), "must hold the variable"),
        ("live-md", lambda f: (f / "Part 2/Scores.mat").unlink(), "needs Part 2/Scores.mat"),
        (
            "live-md",
            lambda f: savemat(f / "Part 1/Scores.mat", {"DMOSscores": [[1.0]]}),
            "1 scores for 225 images",
        ),
        ("pipal", lambda f: (f / "Train_Label/A0001.txt").write_text("A0001\n"), "a name and a score"),
        ("csiq", lambda f: write_xlsx(f / "csiq.DMOS.xlsx", [["a"], ["b"]]), "no sheet 'all_by_image'"),
        ("bid", lambda f: write_xlsx(f / "DatabaseGrades.xlsx", [["a"], ["b"]]), "number of each image"),
    ],
)
def test_a_damaged_release_is_refused_in_a_sentence(
    tmp_path: Path, name: str, spoil: Callable[[Path], object], words: str
) -> None:
    CASES[name].write(tmp_path)
    spoil(tmp_path)
    with pytest.raises((DatasetError, DatasetNotFoundError), match=words):
        read_dataset(tmp_path)


META = {
    "KADID10k": ("ref_name,dist_name,dmos,std", "I01.png,I01_01_01.png,4.57,0.496", 4.57, "I01.png"),
    "CSIQ": ("ref_name,dist_name,dmos", "1600.png,AWGN/1600.AWGN.1.png,0.062", -0.062, "1600.png"),
    "LIVEIQA": ("ref_name,dist_name,mos", "refimgs/a.bmp,jp2k/img1.bmp,15.5", -15.5, "refimgs/a.bmp"),
    "LIVEMD": ("ref_name,dist_name,dmos", "Part 1/a.bmp,Part 1/blurjpeg/a_1.bmp,21.6", -21.6, "Part 1/a.bmp"),
    "PIPAL": ("hq_name,dist_name,elo_score", "A0001.bmp,A0001_00_00.bmp,1520.06", 1520.06, "A0001.bmp"),
    "LIVEChallenge": ("img_name,mos,std,ratio802_seed123_split01", "100.bmp,32.56,19.1,train", 32.56, ""),
    "FLIVE": ("img_name/patch_name,mos,split", "voc/a.jpg,75.4,2", 75.4, ""),
    "AVA": ("img_name,MOS,c1,official_split", "953619.jpg,5.64,0,train", 5.64, ""),
}


@pytest.mark.parametrize("dataset", META)
def test_lists_of_pyiqa_have_their_directions_groups_and_splits(dataset: str, tmp_path: Path) -> None:
    header, row, mos, group = META[dataset]
    path = tmp_path / f"meta_info_{dataset}Dataset.csv"
    path.write_text(f"{header}\n{row}\n")
    image = row.split(",")[1 if header.startswith(("ref", "hq")) else 0]
    touch(tmp_path / "images" / image)
    table = read_dataset(path, images=tmp_path / "images")
    only = table.frame.iloc[0]
    assert (only["mos"], only["group"]) == (mos, group)
    assert only["path"] == str(tmp_path / "images" / image)
    assert only["split"] == {"FLIVE": "test", "AVA": "training"}.get(dataset, "")
    if "std" in header:
        assert table.extra is not None
        assert "mos_std" in table.extra.columns


def test_numbers_are_splits_in_those_lists_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,mos,split\na.jpg,1,0\nb.jpg,2,1\n")
    with pytest.raises(DatasetError, match="must hold one of 'training'"):
        read_dataset(tmp_path / "mine.csv")
