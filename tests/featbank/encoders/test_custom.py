"""Twenty lines make an encoder, with the same checks as all others and its code in its key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featbank.encoders import make_encoder
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
