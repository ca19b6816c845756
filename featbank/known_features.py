"""Remembers which folder of a bank a request for a network's feature leads to, so that asking builds no network.

The identity of a network's feature holds what only its library can tell (layers, widths, normalisation), and
importing those libraries takes longer than looking up 6,000 images. What was found once holds as long as
nothing it rests on has changed: this package's code, the libraries' versions, the records of the weights.
Decoding and view are compared on every look-up. A cache: it may be deleted, lost or damaged at no harm.
"""

from __future__ import annotations

import contextlib
import json
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import featbank
from featbank.bank import Bank, FeatureFolder
from featbank.bank.spec import read_spec
from featbank.digest import canonical_json, digest_json
from featbank.encoders.custom import code_agrees
from featbank.encoders.spec import parse_encoder_name
from featbank.encoders.weights import NETWORK_FAMILIES, weights_folder
from featbank.errors import BankError, EncoderError
from featbank.images import DECODE_POLICY
from featbank.jobs import FeatureRequest
from featbank.remote import replace_file
from featbank.views import parse_view

KNOWN_FEATURES_NAME = "known-features.json"
_LIBRARIES = (
    "numpy",
    "open_clip_torch",
    "pillow",
    "safetensors",
    "simplejpeg",
    "timm",
    "torch",
    "torchvision",
)


def known_folder(bank: Bank, request: FeatureRequest) -> FeatureFolder | None:
    """Open the folder of a network's feature that this bank was asked for before.

    Parameters
    ----------
    bank : Bank
    request : FeatureRequest

    Returns
    -------
    FeatureFolder or None
        None where only building the encoder can tell: at the first time, after any change of code, libraries
        or weights, and for encoders that are not of a network family.
    """
    if request.encoder.partition(":")[0] not in NETWORK_FAMILIES:
        return None  # built at once, or of code that may have changed
    digest = _read(bank).get(_spell(request))
    if digest is None:
        return None
    try:
        spec = read_spec(bank.root / digest)
        if not _agrees(spec.identity, request):
            return None
        if spec.identity["encoder"]["name"] != parse_encoder_name(request.encoder).base:
            return None
    except (FileNotFoundError, BankError, EncoderError, KeyError, TypeError):
        return None
    return bank.open(spec.identity, spec.n_features, spec.label, spec.dtype)


def stored_folders(bank: Bank, request: FeatureRequest) -> list[FeatureFolder]:
    """Find the folders that an encoder in a file of the user's own has filled, without running it.

    Parameters
    ----------
    bank : Bank
    request : FeatureRequest
        Of the family ``file:``; for any other the answer is empty.

    Returns
    -------
    list of FeatureFolder
        All that the file as it is now may have filled by this class, view and aggregate; more than one where its
        identity depends on more than its code and files.

    Raises
    ------
    EncoderError, ViewError
        If there is no such file, or no such view.
    """
    if request.encoder.partition(":")[0] != "file":
        return []
    ending = f":{request.encoder.rpartition(':')[2]}@{parse_view(request.view).name}.{request.aggregate}"
    found = [
        folder
        for folder in bank.features()
        if folder.label.endswith(ending) and _agrees(folder.identity, request)
    ]
    return [folder for folder in found if code_agrees(request.encoder, folder.identity["encoder"])]


def _agrees(identity: dict[str, Any], request: FeatureRequest) -> bool:
    """Compare decoding, view and aggregate."""
    expected = {
        "kind": "computed",
        "decode": DECODE_POLICY,
        "view": parse_view(request.view).identity(),
        "aggregate": request.aggregate,
    }
    return canonical_json({name: identity.get(name) for name in expected}) == canonical_json(expected)


def remember_folder(bank: Bank, request: FeatureRequest, folder: FeatureFolder) -> None:
    """Note where a request leads; does nothing in a read-only bank or where it is known already."""
    if bank.is_read_only or request.encoder.partition(":")[0] not in NETWORK_FAMILIES:
        return
    known = _read(bank)
    if known.get(_spell(request)) == folder.digest:
        return
    content = {"environment": _environment(), "features": {**known, _spell(request): folder.digest}}
    with contextlib.suppress(OSError):
        text = json.dumps(content, indent=1, sort_keys=True)
        replace_file(bank.root / KNOWN_FEATURES_NAME, text.encode("ascii"))


def _spell(request: FeatureRequest) -> str:
    return f"{request.encoder}@{request.view}.{request.aggregate}"


def _read(bank: Bank) -> dict[str, str]:
    try:
        content = json.loads((bank.root / KNOWN_FEATURES_NAME).read_bytes())
        if content["environment"] != _environment():
            return {}
        return {str(name): str(digest) for name, digest in content["features"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _environment() -> str:
    """Digest everything that the identity of a network's feature is made of, other than its name and view."""
    folder = weights_folder()
    records = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.glob("*/*.json"))
    }
    return digest_json({"installation": _installation(), "weights": records})


@cache
def _installation() -> str:
    code = Path(featbank.__file__).parent
    return digest_json(
        {
            "python": platform.python_version(),
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "code": {
                path.relative_to(code).as_posix(): path.read_text(encoding="utf-8")
                for path in sorted(code.rglob("*.py"))
            },
        }
    )


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
