"""The registry is lazy and helps with spelling."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featbank.encoders import list_encoders, make_encoder
from featbank.errors import UnknownNameError


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
