"""The registry is lazy, refuses collisions and helps with spelling."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from featbank.encoders import EncoderRegistry, list_encoders, make_encoder
from featbank.encoders.registry import CATALOGUE
from featbank.errors import EncoderError, UnknownNameError

SPEC, PATH = CATALOGUE[0]


def test_four_roles_need_no_weights() -> None:
    free = [spec for spec in list_encoders() if spec.weights == "none"]
    assert {"quality", "content", "scene", "keypoint"} <= {spec.role for spec in free}


def test_every_listed_name_can_be_built() -> None:
    for spec in list_encoders():
        assert make_encoder(spec.name).spec == spec


def test_listing_imports_no_encoder() -> None:
    code = (
        "import sys; from featbank.encoders import list_encoders; list_encoders();"
        "heavy = {'scipy', 'torch', 'featbank.encoders.classic.nss'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_name_gets_near_names() -> None:
    with pytest.raises(UnknownNameError, match=r"got 'classic:gits'\. Did you mean 'classic:gist'"):
        make_encoder("classic:gits")


def test_name_cannot_be_taken_twice() -> None:
    registry = EncoderRegistry()
    registry.register(SPEC, PATH)
    registry.register(SPEC, PATH)
    with pytest.raises(EncoderError, match=PATH):
        registry.register(SPEC, "elsewhere:Encoder")
    with pytest.raises(EncoderError, match="taken"):
        registry.register(replace(SPEC, n_features=1), PATH)
    assert registry.specs() == [SPEC]


@pytest.mark.parametrize("path", ["", "module", "module:", ":Class"])
def test_path_must_name_module_and_class(path: str) -> None:
    with pytest.raises(EncoderError, match=r"package\.module:Class"):
        EncoderRegistry().register(SPEC, path)


@pytest.mark.parametrize("path", ["math:sqrt", "math:missing", "pathlib:Path"])
def test_path_must_lead_to_an_encoder(path: str) -> None:
    registry = EncoderRegistry()
    registry.register(SPEC, path)
    with pytest.raises(EncoderError, match="subclass of Encoder"):
        registry.make(SPEC.name)


def test_registries_do_not_share_names() -> None:
    registry = EncoderRegistry()
    registry.register(replace(SPEC, name="classic:other"), PATH)
    assert "classic:other" not in [spec.name for spec in list_encoders()]
