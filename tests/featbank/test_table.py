"""The table joins features to images by key, whatever the order, and never guesses what is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featbank import table as tables
from featbank.bank import Bank
from featbank.datasets import ImageTable, read_dataset
from featbank.errors import BankError, DatasetError, MissingFeaturesError
from featbank.extract import FeatureRequest, extract
from featbank.importing import import_features
from featbank.table import build_table, resolve_band
from tests.support.datasets import write_image

REQUEST = FeatureRequest("classic:layout", "squash_16x16")


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    lines = ["path,mos"]
    for number in range(5):
        write_image(tmp_path / f"{number}.png", seed=number)
        lines.append(f"{number}.png,{number}")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    return read_dataset(tmp_path / "scores.csv")


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "bank")


def images(table: ImageTable) -> list[tuple[str, str]]:
    return list(zip(table.frame["image_id"], table.frame["path"], strict=True))


def layout(bank: Bank, table: ImageTable) -> list:
    return [resolve_band(bank, table, "layout", REQUEST.encoder, REQUEST.view)]


def test_rows_follow_the_image_under_any_order(table: ImageTable, bank: Bank) -> None:
    extract(images(table), [REQUEST], bank, workers=1)
    X = build_table(table, layout(bank, table), bank, "again").X
    shuffled = replace(table, frame=table.frame.sample(frac=1, random_state=1).reset_index(drop=True))
    again = build_table(shuffled, layout(bank, table), bank, "again").X
    assert list(again.index) == list(shuffled.frame["image_id"])
    assert np.array_equal(X.loc[again.index].to_numpy(), again.to_numpy())
    assert list(X.columns[:2]) == ["layout:0000", "layout:0001"]
    assert X.columns.is_unique
    assert X.to_numpy().dtype == np.float64


def test_uncomputed_features_raise_with_the_command(table: ImageTable, bank: Bank) -> None:
    extract(images(table)[:3], [REQUEST], bank, workers=1)
    with pytest.raises(MissingFeaturesError, match=r"2 of 5 images .* `featbank features X`"):
        build_table(table, layout(bank, table), bank, "featbank features X")


def test_missing_and_broken_images_are_left_out_with_their_reason(table: ImageTable, bank: Bank) -> None:
    Path(table.frame["path"][0]).unlink()
    Path(table.frame["path"][1]).write_bytes(b"not an image")
    extract(images(table), [REQUEST], bank, workers=1)
    features = build_table(table, layout(bank, table), bank, "again")
    assert len(features.X) == 3
    assert list(features.left_out["reason"]) == ["missing", "not-an-image"]


def test_copies_are_rows_of_their_own_and_named(table: ImageTable, bank: Bank) -> None:
    for copy in (1, 3):
        Path(table.frame["path"][copy]).write_bytes(Path(table.frame["path"][0]).read_bytes())
    extract(images(table), [REQUEST], bank, workers=1)
    features = build_table(table, layout(bank, table), bank, "again")
    assert features.copies == [("1.png", "0.png"), ("3.png", "0.png")]
    assert np.array_equal(features.X.iloc[0], features.X.iloc[3])


def test_no_image_at_all_is_an_error(table: ImageTable, bank: Bank) -> None:
    for path in table.frame["path"]:
        Path(path).unlink()
    with pytest.raises(MissingFeaturesError, match="not one of the 5 images"):
        build_table(table, layout(bank, table), bank, "again")


def test_imported_and_computed_bands_stand_side_by_side(table: ImageTable, bank: Bank) -> None:
    extract(images(table), [REQUEST], bank, workers=1)
    matrix = np.arange(10.0).reshape(5, 2)
    names = ["4", "2.png", "0", "3.png", "1.png"]
    import_features(table, bank, "mine", names, matrix, source_digest="x", gmacs=None)
    bands = [*layout(bank, table), resolve_band(bank, table, "own", "imported:mine")]
    X = build_table(table, bands, bank, "again").X
    assert X.loc["2.png", ["own:0000", "own:0001"]].tolist() == [2.0, 3.0]
    assert np.isnan(bands[1].gmacs)


def test_imported_bands_serve_images_that_are_not_at_hand(table: ImageTable, bank: Bank) -> None:
    for path in table.frame["path"]:
        Path(path).unlink()
    import_features(table, bank, "mine", None, np.arange(5.0)[:, None], source_digest="x")
    bands = [resolve_band(bank, table, "own", "imported:mine")]
    assert build_table(table, bands, bank, "again").X["own:0000"].tolist() == [0, 1, 2, 3, 4]


def test_a_second_import_needs_a_word(table: ImageTable, bank: Bank) -> None:
    import_features(table, bank, "mine", None, np.zeros((5, 1)), source_digest="x")
    import_features(
        table, bank, "mine", None, np.zeros((5, 1)), source_digest="x"
    )  # the same once more is nothing
    with pytest.raises(BankError, match="--replace"):
        import_features(table, bank, "mine", None, np.ones((5, 1)), source_digest="y")
    import_features(table, bank, "mine", None, np.ones((5, 1)), source_digest="y", replace=True)
    bands = [resolve_band(bank, table, "own", "imported:mine")]
    assert build_table(table, bands, bank, "again").X["own:0000"].tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("names", "n_rows", "expected"),
    [
        (None, 4, "4 rows but dataset"),
        (["0", "1", "2", "3", "nine.png"], 5, "no image"),
        (["0", "1", "2", "3", "3.png"], 5, "more than one row"),
    ],
)
def test_rows_that_cannot_be_matched_import_nothing(
    table: ImageTable, bank: Bank, names: list[str] | None, n_rows: int, expected: str
) -> None:
    with pytest.raises(DatasetError, match=expected):
        import_features(table, bank, "mine", names, np.zeros((n_rows, 2)), source_digest="x")
    assert not bank.features()


def test_an_absent_band_lists_what_there_is(table: ImageTable, bank: Bank) -> None:
    import_features(table, bank, "mine", None, np.zeros((5, 1)), source_digest="x")
    with pytest.raises(MissingFeaturesError, match=r"mine \(csv:scores in "):
        resolve_band(bank, table, "own", "imported:other")


def test_a_file_that_is_there_and_not_read_is_no_missing_one(tmp_path: Path) -> None:
    with (tmp_path / "vast.jpg").open("wb") as file:
        file.truncate(200 << 30)  # takes no space
    reason, message = tables._why_without_key(str(tmp_path / "vast.jpg"))
    assert reason == "too-large"
    assert "vast.jpg has 214748364800 bytes" in message
    assert tables._why_without_key(str(tmp_path / "none.jpg"))[0] == "missing"
