"""Tables of one's own, as Excel, pandas, R and people write them: twelve images, each in its row with its MOS."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from featbank.cli import main
from featbank.datasets import read_dataset
from featbank.errors import DatasetError
from tests.support.datasets import touch, write_image, write_xlsx

NAMES = [f"img/é{number:02d}.jpg" for number in range(12)]
MOS = [(25 + number) / 10 for number in range(12)]
FRAME = pd.DataFrame({"path": NAMES, "mos": MOS})

Write = Callable[[Path], object]


class Variant(NamedTuple):
    """The file's name, how it is written, what its notes must say, and how it is read."""

    name: str
    write: Write
    words: Sequence[str] = ()
    read: dict[str, Any] = {}  # noqa: RUF012 - never changed; "images" is relative to the table's folder


def lines(
    mark: str = ",",
    header: Sequence[str] = ("path", "mos"),
    names: Sequence[str] = NAMES,
    mos: Sequence[object] = MOS,
    more: Sequence[Sequence[object]] = (),
) -> str:
    rows = [header, *zip(names, mos, *more, strict=True)]
    return "".join(mark.join(map(str, row)) + "\n" for row in rows)


def text(content: str, encoding: str = "utf-8") -> Write:
    return lambda path: path.write_bytes(content.encode(encoding))


COMMAS = [str(mos).replace(".", ",") for mos in MOS]
WINDOWS = [name.replace("/", "\\") for name in NAMES]
BARE = [name.removeprefix("img/") for name in NAMES]
SEMICOLONS = "semicolons between columns"
FOUND = "Images found by another spelling than written: 12"
INDEX = "a column of row numbers left out"

VARIANTS = {
    "plain": Variant("t.csv", text(lines())),
    "all quoted": Variant("t.csv", lambda path: FRAME.to_csv(path, index=False, quoting=1)),
    "blanks in the header": Variant("t.csv", text(lines(header=(" Path", " MOS ")))),
    "blanks after commas": Variant("t.csv", text(lines(", "))),
    "semicolons": Variant("t.csv", text(lines(";")), [SEMICOLONS]),
    "decimal commas": Variant("t.csv", text(lines(";", mos=COMMAS)), [SEMICOLONS, "decimal commas in 'mos'"]),
    "Excel in Germany": Variant(
        "t.csv", text(lines(";", mos=COMMAS).replace("\n", "\r\n"), "utf-8-sig"), ["decimal commas in 'mos'"]
    ),
    "decimal commas, quoted": Variant(
        "t.csv", text(lines(mos=[f'"{mos}"' for mos in COMMAS])), ["decimal commas"]
    ),
    "decimal commas between tabs": Variant(
        "t.tsv", text(lines("\t", mos=COMMAS)), ["tabs", "decimal commas"]
    ),
    "zeros before thousandths": Variant(
        "t.csv", text(lines(";", mos=[f"0,{number}" for number in range(125, 137)])), ["decimal commas"]
    ),
    "tabs": Variant("t.txt", text(lines("\t")), ["tabs between columns"]),
    "bars": Variant("t.csv", text(lines("|")), ["bars between columns"]),
    "blanks": Variant("t.txt", text(lines(" ")), ["blanks between columns"]),
    "aligned": Variant("t.txt", lambda path: path.write_text(FRAME.to_string(index=False)), ["blanks"]),
    "commas within semicolons": Variant(
        "t.csv", text(lines(";", ("path", "mos", "tags"), more=[["a,b,c"] * 12])), [SEMICOLONS]
    ),
    "old Macintosh": Variant("t.csv", text(lines().replace("\n", "\r"))),
    "trailing semicolons": Variant("t.csv", text(lines(";").replace("\n", ";\n")), [SEMICOLONS]),
    "trailing in rows alone": Variant("t.csv", text(lines().replace("\n", ",\n").replace("mos,", "mos", 1))),
    "sep=;": Variant("t.csv", text("sep=;\r\n" + lines(";")), [SEMICOLONS]),
    "sep=tab": Variant("t.csv", text("sep=\t\n" + lines("\t"), "utf-8-sig"), ["tabs between columns"]),
    "sep quoted": Variant("t.csv", text('"sep=|"\n' + lines("|")), ["bars between columns"]),
    "comments": Variant("t.csv", text("# my scores\n#\n" + lines()), ["comment lines left out: 2"]),
    "comments below": Variant("t.csv", text(lines(";") + "# 12 images\n"), ["comment lines left out: 1"]),
    "a header called #": Variant(
        "t.csv", lambda path: FRAME.rename_axis("#").to_csv(path), ["Columns not used: #"]
    ),
    "UTF-16 of Excel": Variant("t.txt", text(lines("\t"), "utf-16"), ["tabs", "encoding utf-16"]),
    "UTF-16 without mark": Variant("t.csv", text(lines(), "utf-16-le"), ["encoding utf-16-le"]),
    "UTF-16, big end first": Variant("t.csv", text("\ufeff" + lines(), "utf-16-be"), ["encoding utf-16"]),
    "Windows-1252": Variant("t.csv", text(lines(), "cp1252"), ["encoding cp1252"], {"encoding": "cp1252"}),
    "Latin-1": Variant("t.csv", text(lines(), "latin-1"), ["encoding iso8859-1"], {"encoding": "latin1"}),
    "index": Variant("t.csv", lambda path: FRAME.to_csv(path), [INDEX]),
    "index written again": Variant(
        "t.csv", lambda path: FRAME.rename(columns=str).rename_axis("Unnamed: 0").to_csv(path), [INDEX]
    ),
    "names as index": Variant(
        "t.csv",
        lambda path: FRAME.set_index("path").rename_axis("").to_csv(path),
        ["image names from the column without a name"],
    ),
    "row names of R": Variant(
        "t.txt",
        text('"path" "mos"\n' + "".join(f'"{n + 1}" "{NAMES[n]}" {MOS[n]}\n' for n in range(12))),
        ["blanks", INDEX],
    ),
    "backslashes": Variant("t.csv", text(lines(names=WINDOWS)), [f"{FOUND} with / for \\"]),
    "backslashes in image_name": Variant(
        "t.csv", text(lines(header=("image_name", "mos"), names=WINDOWS)), [f"{FOUND} with / for \\"]
    ),
    "from here": Variant("t.csv", text(lines(names=[".\\" + name for name in WINDOWS])), ["/ for \\"]),
    "another case": Variant(
        "t.csv", text(lines(names=[name.upper() for name in NAMES])), [f"{FOUND} in another case"]
    ),
    "Unicode taken apart": Variant(
        "t.csv", text(lines(names=[unicodedata.normalize("NFD", name) for name in NAMES])), ["Unicode form"]
    ),
    "no ending": Variant("t.csv", text(lines(names=[name[:-4] for name in NAMES])), ["their ending added"]),
    "another machine": Variant(
        "t.csv",
        text(lines(names=[f"/data/koniq/{name}" for name in BARE])),
        ["12 image(s) found by name in"],
        {"images": "."},
    ),
    "a Windows machine": Variant(
        "t.csv", text(lines(names=[f"D:\\koniq\\{name}" for name in BARE])), ["/ for \\"], {"images": "img"}
    ),
    "a share": Variant(
        "t.csv", text(lines(names=[f"\\\\nas\\koniq\\{name}" for name in WINDOWS])), [], {"images": "."}
    ),
    "Windows in image_name": Variant(
        "t.csv",
        text(lines(header=("image_name", "mos"), names=[f"C:/x/{name}" for name in NAMES])),
        [],
        {"images": "."},
    ),
    "last parts": Variant(
        "t.csv",
        text(lines(names=[f"koniq/{name}" for name in NAMES])),
        ["by the last parts"],
        {"images": "."},
    ),
    "names alone": Variant("t.csv", text(lines(names=BARE)), ["found by name in"], {"images": "."}),
    "columns": Variant(
        "t.csv",
        text(lines(header=("Img_Name", "mos_quality", "mos"), more=[[0] * 12])),
        ["Img_Name as image, mos_quality as mos", "Columns not used: mos (as written)"],
        {"columns": {"image": "Img_Name", "mos": "mos_quality"}},
    ),
    "one of several": Variant(
        "t.csv",
        text(lines(header=("path", "sharpness", "mos"), more=[[0] * 12])),
        ["sharpness as mos"],
        {"mos": "sharpness"},
    ),
    "dmos chosen": Variant(
        "t.csv",
        text(lines(header=("path", "d", "mos"), mos=[-mos for mos in MOS], more=[[0] * 12])),
        ["negative"],
        {"columns": {"dmos": "d"}},
    ),
    "workbook": Variant(
        "t.xlsx", lambda path: write_xlsx(path, [("path", "mos"), *zip(NAMES, MOS, strict=True)])
    ),
    "workbook with index": Variant(
        "t.xlsx",
        lambda path: write_xlsx(path, [("", "path", "mos"), *zip(range(12), NAMES, MOS, strict=True)]),
        [INDEX],
    ),
    "Parquet": Variant("t.parquet", lambda path: FRAME.to_parquet(path, index=False)),
    "Parquet with names as index": Variant(
        "t.parquet",
        lambda path: FRAME.set_index("path").rename_axis(None).to_parquet(path),
        ["without a name"],
    ),
    "Parquet with lists": Variant(
        "t.parquet",
        lambda path: FRAME.assign(path=FRAME["path"].astype("category"), votes=[[1, 2]] * 12).to_parquet(
            path
        ),
        ["columns of lists left out: votes"],
    ),
    "Feather": Variant("t.feather", lambda path: FRAME.to_feather(path)),
    "JSON lines": Variant(
        "t.jsonl", lambda path: FRAME.to_json(path, orient="records", lines=True, force_ascii=False)
    ),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        touch(folder / name)
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_every_row_has_its_image_and_its_mos(name: str, photos: Path) -> None:
    variant = VARIANTS[name]
    path = photos / variant.name
    variant.write(path)
    read = dict(variant.read)
    if "images" in read:
        read["images"] = photos / read["images"]
    table = read_dataset(path, **read)
    assert [Path(file).relative_to(photos).as_posix() for file in table.frame["path"]] == NAMES
    expected = [0.125 + number / 1000 for number in range(12)] if "thousandths" in name else MOS
    np.testing.assert_allclose(table.frame["mos"], expected, rtol=1e-12)
    notes = " ".join(table.notes)
    assert all(word in notes for word in variant.words), notes
    assert bool(variant.words) or "How the table was read" not in notes, notes
    assert sum(note.startswith("How the table was read") for note in table.notes) <= 1
    again = read_dataset(**table.asked)
    pd.testing.assert_frame_equal(again.frame, table.frame)


def test_splits_are_understood_in_their_spellings_and_the_rest_is_kept(photos: Path) -> None:
    words = [
        "train",
        "Training",
        "TRAIN",
        "training",
        "val",
        "valid",
        "Validation",
        "dev",
        "test",
        "Test",
        "testing",
        "",
    ]
    content = lines(header=("path", "mos", "split", "Camera"), more=[words, list("abcdefghijkl")])
    text(content)(photos / "t.csv")
    table = read_dataset(photos / "t.csv")
    assert table.counts() == {"training": 4, "validation": 4, "test": 3, "no split": 1}
    assert "train as training, Training as training" in table.notes[0]
    assert table.extra is not None
    assert table.extra.columns == {"camera": list("abcdefghijkl")}


REFUSED: dict[str, tuple[str, Write, dict[str, Any], str]] = {
    "thousands or decimals": (
        "t.csv",
        text(lines(";", mos=[f"2,{number}" for number in range(500, 512)])),
        {},
        "'mos' may be decimal ones or separate thousands: '2,500'.*Write decimals with a point",
    ),
    "commas and points": (
        "t.csv",
        text(lines(";", mos=[*COMMAS[:6], *MOS[6:]])),
        {},
        "'mos' must hold finite numbers.*got '2,5' in line 2",
    ),
    "Windows-1252": ("t.csv", text(lines(), "cp1252"), {}, "line 2 holds the byte 0xe9. .*--encoding cp1252"),
    "another encoding": (
        "t.csv",
        text(lines(), "cp1252"),
        {"encoding": "ascii"},
        "must be text in ASCII, line 2 holds the byte 0xe9",
    ),
    "an unknown encoding": (
        "t.csv",
        text(lines()),
        {"encoding": "windoze"},
        "'windoze' is no encoding of text",
    ),
    "NUL": ("t.csv", text(lines().replace("3.0", "3\0")), {}, "line 7 holds a NUL character"),
    "a Windows machine": ("t.csv", text(lines(names=[f"D:\\{n}" for n in WINDOWS])), {}, "--images DIR"),
    "a column that is not there": (
        "t.csv",
        text(lines()),
        {"mos": "sharpness"},
        "needs the column.*'sharpness', its columns are 'path', 'mos'",
    ),
    "a choice that is not known": (
        "t.csv",
        text(lines()),
        {"columns": {"picture": "path"}},
        "--columns takes image, .*got picture",
    ),
    "two choices": (
        "t.csv",
        text(lines()),
        {"columns": {"mos": "mos"}, "mos": "path"},
        "--mos path and --columns mos=mos",
    ),
    "no names": ("t.csv", text(lines(header=("file", "mos"))), {}, "--columns image=NAME"),
    "a list in JSON": ("t.jsonl", text('{"path": "1.jpg"}\n[1]\n'), {}, "line 2 must hold a JSON object"),
    "half a line of JSON": ("t.jsonl", text('{"path": "1.jpg"\n'), {}, "line 1 is not valid JSON"),
    "Parquet cut off": (
        "t.parquet",
        lambda path: path.write_bytes(b"PAR1" + bytes(99)),
        {},
        "Save the columns",
    ),
    "no Feather": ("t.feather", text(lines()), {}, "not a table in Feather that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_leaves_a_choice_is_refused_in_a_sentence(name: str, photos: Path) -> None:
    file, write, read, message = REFUSED[name]
    write(photos / file)
    with pytest.raises(DatasetError, match=message):
        read_dataset(photos / file, **read)


def test_two_files_that_fit_one_name_are_not_chosen_from(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg")
    touch(tmp_path / "1.png")
    text("path,mos\n1,3\n")(tmp_path / "t.csv")
    with pytest.raises(DatasetError, match=r"'1' fits several files: .*1\.jpg, .*1\.png"):
        read_dataset(tmp_path / "t.csv")
    text("path,mos\n1.jpg,3\n")(tmp_path / "t.csv")
    assert read_dataset(tmp_path / "t.csv").frame["path"].tolist() == [str(tmp_path / "1.jpg")]


def test_of_several_sizes_the_one_that_the_path_names_is_taken(tmp_path: Path) -> None:
    for size in ("512x384", "1024x768"):
        touch(tmp_path / "koniq" / size / "1.jpg")
    text("path,mos\nE:\\iqa\\1024x768\\1.jpg,3\n")(tmp_path / "t.csv")
    table = read_dataset(tmp_path / "t.csv", images=tmp_path)
    assert table.frame["path"].tolist() == [str(tmp_path / "koniq/1024x768/1.jpg")]


RECIPE = """
recipe_version = 1
[[band]]
name = "m"
encoder = "imported:m"
[regression]
members = "all"
"""


def test_every_command_reads_the_table_as_asked_and_the_run_remembers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 60).round(2)
    for number in range(60):
        write_image(tmp_path / f"photos/{number:02d}.png", seed=number)
    frame = pd.DataFrame(
        {
            "img": [f"D:\\photos\\{number:02d}" for number in range(60)],
            "sharpness": mos,
            "mos": 0,
            "set": ["Train"] * 40 + ["val"] * 10 + ["test"] * 10,
            "who": [f"Jörg {number // 2}" for number in range(60)],
        }
    )
    data = tmp_path / "scores.csv"
    frame.to_csv(data, sep=";", index=False, decimal=",", encoding="cp1252")
    np.save(tmp_path / "m.npy", np.column_stack([mos, rng.normal(size=60)]))
    (tmp_path / "mine.toml").write_text(RECIPE)
    asked = ["--columns", "image=img,split=set,group=who", "--mos", "sharpness", "--encoding", "cp1252"]
    asked += ["--images", str(tmp_path / "photos")]
    understood = (
        "semicolons between columns; encoding cp1252; columns chosen: img as image, set as split, who as "
    )
    stored = ["--bank", str(tmp_path / "bank"), *asked]
    recipe = ["--recipe", str(tmp_path / "mine.toml"), "--workers", "1", *stored]

    assert main(["bank", "import", str(data), str(tmp_path / "m.npy"), "--band", "m", *stored]) == 0
    capsys.readouterr()
    for command in (
        ["check", str(data), "--workers", "1", *asked],
        ["features", str(data), *recipe],
        ["fit", str(data), "--out", str(tmp_path / "run"), "--permutations", "0", *recipe],
    ):
        assert main(command) == 0
        assert understood in "".join(capsys.readouterr())
    receipt = json.loads((tmp_path / "run/receipt.json").read_text())
    assert receipt["dataset"]["counts"] == {"training": 40, "validation": 10, "test": 10}
    assert receipt["dataset"]["mos_range"] == [mos.min(), mos.max()]
    assert receipt["dataset"]["n_groups"] == 30
    page = (tmp_path / "run/report.html").read_text()
    assert "data:image/" in page
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/report.html").read_text() == page


def test_columns_that_weight_images_are_read_when_asked(photos: Path) -> None:
    content = lines(
        ";",
        ("path", "mos", "SD", "n_ratings", "weight"),
        mos=COMMAS,
        more=[["0,5", "0,25"] * 6, [8, 24] * 6, [0] * 12],
    )
    text(content)(photos / "t.csv")
    table = read_dataset(photos / "t.csv", columns={"mos_std": "SD"})
    assert (
        "Used only if a recipe's regression.sample_weight names it: mos_std, n_ratings, weight."
        in table.notes
    )
    np.testing.assert_allclose(table.weights("mos_std", NAMES), [0.4, 1.6] * 6)
    np.testing.assert_allclose(table.weights("n_ratings", NAMES[1:3]), [1.5, 0.5])
    with pytest.raises(DatasetError, match="'weight' must be positive for each that takes part, got 0 for"):
        table.weights("weight", NAMES)
    text(lines())(photos / "t.csv")
    with pytest.raises(DatasetError, match=r"needs the column.*'n_ratings', its columns are"):
        read_dataset(photos / "t.csv").weights("n_ratings", NAMES)
