"""Twenty lines make an encoder, with the same checks as all others and its code in its key."""

from __future__ import annotations

import py_compile
from importlib.util import cache_from_source
from pathlib import Path

import numpy as np
import pytest

from featbank.digest import digest_file
from featbank.encoders import allow_code, make_encoder
from featbank.encoders.custom import code_agrees
from featbank.errors import EncoderError, UnknownNameError
from featbank.feature import make_feature

CODE = """
import numpy as np
from featbank.encoders import Encoder, EncoderSpec


class Brightness(Encoder):
    def __init__(self):
        super().__init__(
            EncoderSpec(
                name="file:mine.py:Brightness", role="quality", title="mean of each channel", reference="mine",
                licence="mine", weights="none", n_features=3,
            )
        )

    def identity(self):
        return {"name": "brightness", "parameters": {}, "epoch": 1}

    def pass_identity(self):
        return self.identity()

    def count_macs(self, height, width):
        return 3 * height * width

    def _encode(self, crops):
        return (crops.mean(axis=(1, 2)) / FACTOR).astype(np.float32)
"""


@pytest.fixture(autouse=True)
def _is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATBANK_ALLOW_CODE", "1")


def write(folder: Path, factor: str = "255") -> Path:
    path = folder / "mine.py"
    path.write_text(CODE.replace("FACTOR", factor))
    return path


def test_a_file_gives_an_encoder_and_a_feature(tmp_path: Path) -> None:
    name = f"file:{write(tmp_path)}:Brightness"
    encoder = make_encoder(name)
    assert encoder.spec.name == name
    crops = np.full((2, 8, 8, 3), 51, dtype=np.uint8)
    np.testing.assert_allclose(encoder.encode(crops), 0.2, rtol=1e-6)
    assert make_feature(name, "center_8").gmacs() == pytest.approx(3 * 64 / 1e9)


def test_editing_the_code_changes_the_key(tmp_path: Path) -> None:
    first = make_encoder(f"file:{write(tmp_path)}:Brightness")
    second = make_encoder(f"file:{write(tmp_path, '100')}:Brightness")
    assert first.identity() != second.identity()
    assert first.pass_identity() != second.pass_identity()
    crop = np.full((1, 8, 8, 3), 50, dtype=np.uint8)
    assert second.encode(crop)[0, 0] == 0.5


def test_nothing_is_run_before_the_user_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    path.write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n" + path.read_text())
    for value in ("", "0", "true"):
        monkeypatch.setenv("FEATBANK_ALLOW_CODE", value)
        with pytest.raises(EncoderError, match=rf"{path} .SHA-256 {digest_file(path)[:12]}.*--allow-code"):
            make_encoder(f"file:{path}:Brightness")
    assert not (tmp_path / "ran").exists()
    with allow_code():
        make_encoder(f"file:{path}:Brightness")
    assert (tmp_path / "ran").exists()
    with pytest.raises(EncoderError, match="not run"):
        make_encoder(f"file:{path}:Brightness")


def test_the_source_is_run_and_not_what_was_compiled_beside_it(tmp_path: Path) -> None:
    """Python would take the compiled file, whose bytes are in no digest."""
    path = write(tmp_path)
    wrong = tmp_path / "wrong.py"
    wrong.write_text("raise SystemError('compiled code was run')")
    compiled = cache_from_source(path)
    py_compile.compile(str(wrong), compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert make_encoder(f"file:{path}:Brightness").spec.n_features == 3


READS_A_FILE = "__import__('numpy').load(__file__.replace('mine.py', 'weights.npy'))"


def write_with_weights(folder: Path, value: float) -> str:
    path = write(folder, READS_A_FILE)
    path.write_text(path.read_text().replace("(Encoder):\n", "(Encoder):\n    files = ('weights.npy',)\n\n"))
    np.save(folder / "weights.npy", value)
    return f"file:{path}:Brightness"


def test_files_that_the_class_names_are_part_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    name = write_with_weights(tmp_path, 100.0)
    before, crop = make_encoder(name), np.full((1, 8, 8, 3), 50, dtype=np.uint8)
    assert before.encode(crop)[0, 0] == 0.5
    identity = before.identity()
    assert code_agrees(name, identity)
    assert make_encoder(write_with_weights(tmp_path / "copy", 100.0)).identity() == identity
    write_with_weights(tmp_path, 25.0)
    after = make_encoder(name)
    assert after.encode(crop)[0, 0] == 2.0
    assert not code_agrees(name, identity)
    assert after.identity() != identity
    assert after.pass_identity() != before.pass_identity()


def test_the_key_of_an_encoder_without_files_is_as_ever(tmp_path: Path) -> None:
    path = write(tmp_path)
    inner = {"name": "brightness", "parameters": {}, "epoch": 1}
    expected = {"custom": inner, "code": digest_file(path)}
    assert make_encoder(f"file:{path}:Brightness").identity() == expected


@pytest.mark.parametrize("files", ["'weights.npy'", "('../weights.npy',)", "('/etc/hostname',)", "(3,)"])
def test_files_lie_beside_the_code(files: str, tmp_path: Path) -> None:
    name = write_with_weights(tmp_path, 1.0)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("('weights.npy',)", files))
    with pytest.raises(EncoderError, match=r"files must be a tuple"):
        make_encoder(name)


def test_a_file_that_the_class_names_must_be_there(tmp_path: Path) -> None:
    name = write_with_weights(tmp_path, 1.0)
    (tmp_path / "weights.npy").unlink()
    with pytest.raises(EncoderError, match=r"weights\.npy.* no such file"):
        make_encoder(name)


def test_what_comes_out_is_checked(tmp_path: Path) -> None:
    encoder = make_encoder(f"file:{write(tmp_path, '(crops.mean() * 0)')}:Brightness")
    with pytest.raises(EncoderError, match="not finite"), np.errstate(all="ignore"):
        encoder.encode(np.ones((1, 8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("file:mine.py", "file:PATH.py:ClassName"),
        ("file:mine.txt:Brightness", "file:PATH.py:ClassName"),
        ("file:absent.py:Brightness", "there is no file"),
    ],
)
def test_a_wrong_spelling_or_place_is_named(name: str, expected: str) -> None:
    with pytest.raises(EncoderError, match=expected):
        make_encoder(name)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("Mine = 3", "subclass"),
        ("class Mine: pass", "subclass"),
        (
            CODE.replace("Brightness", "Mine").replace("n_features=3", "n_features=len(open('/no'))"),
            "no argument.*/no",
        ),
        (
            CODE.replace("Brightness", "Mine").replace(
                "(self):\n        super", "(self, size):\n        super"
            ),
            "no argument",
        ),
    ],
)
def test_wrong_code_is_an_error_of_one_sentence(tmp_path: Path, code: str, expected: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(code)
    with pytest.raises(EncoderError, match=expected):
        make_encoder(f"file:{path}:Mine")


def test_an_unknown_plugin_is_named() -> None:
    with pytest.raises(UnknownNameError, match="plugin:absent"):
        make_encoder("plugin:absent")
