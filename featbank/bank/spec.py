"""What one feature of the bank is: its identity, width and stored type, in ``spec.json`` beside the shards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from featbank.bank.files import explain, is_vanished
from featbank.bank.place import put
from featbank.digest import canonical_json, digest_json
from featbank.errors import BankError
from featbank.remote import Place

FORMAT_VERSION = 1
"""Version of everything in a bank folder: ``spec.json``, the shards, the image log."""

SPEC_NAME = "spec.json"
STORED_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class FeatureSpec:
    """The full description of one feature.

    Parameters
    ----------
    identity : dict
        Everything that can change the numbers, as JSON with string keys; its digest names the folder.
    n_features : int
        Numbers per image, at least 1.
    dtype : str
        How they are stored, ``"float32"`` or ``"float16"``.
    label : str
        A name for people, not part of the identity: two recipes may call one feature differently.
    """

    identity: dict[str, Any]
    n_features: int
    dtype: str
    label: str

    def __post_init__(self) -> None:
        text = canonical_json(self.identity)
        # Integers as keys sort as numbers here and as text after reading back: two digests of one thing.
        if not isinstance(self.identity, dict) or canonical_json(json.loads(text)) != text:
            raise ValueError(f"bank: identity must be a JSON object with string keys, got {self.identity!r}")
        if isinstance(self.n_features, bool) or not isinstance(self.n_features, int) or self.n_features < 1:
            raise ValueError(f"bank: n_features must be an integer of at least 1, got {self.n_features!r}")
        if self.dtype not in STORED_DTYPES:
            raise ValueError(f"bank: dtype must be one of {', '.join(STORED_DTYPES)}, got {self.dtype!r}")
        if not isinstance(self.label, str):
            raise TypeError(f"bank: label must be a str, got {self.label!r}")
        object.__setattr__(self, "identity", json.loads(text))  # tuples become lists, as on disk

    @property
    def digest(self) -> str:
        """SHA-256 of the identity's canonical JSON as 64 hexadecimal digits; the folder's name."""
        return digest_json(self.identity)

    def write(self, folder: Place) -> None:
        """Write ``spec.json``; equal specifications give equal bytes.

        Raises
        ------
        BankError
            If the folder cannot be written to.
        """
        content = {
            "bank_format_version": FORMAT_VERSION,
            "dtype": self.dtype,
            "identity": self.identity,
            "label": self.label,
            "n_features": self.n_features,
        }
        text = json.dumps(content, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=True)
        put(folder, SPEC_NAME, (text + "\n").encode("ascii"))

    def check_agrees(self, stored: FeatureSpec, folder: Place) -> None:
        """Refuse a stored specification that is not this one; labels may differ.

        Raises
        ------
        BankError
            Naming the field, both values and the folder.
        """
        for field in ("identity", "n_features", "dtype"):
            wanted, found = getattr(self, field), getattr(stored, field)
            if canonical_json(wanted) != canonical_json(found):
                raise BankError(
                    f"bank: {folder} holds a feature whose {field} is {found!r}, expected {wanted!r} for "
                    f"{self.label!r}. Features of two kinds must not mix: what changes {field} belongs into the "
                    "identity (raise the epoch of the code that computes it), or use another bank folder."
                )


def read_json(path: Place) -> dict[str, Any]:
    """Read a ``spec.json`` of any kind and check its format version.

    Raises
    ------
    FileNotFoundError
        If there is none.
    BankError
        If it cannot be read, or was written by a newer or an older version.
    """
    try:
        content = json.loads(path.read_bytes())
        version = content["bank_format_version"]
    except OSError as error:
        if is_vanished(error):
            raise FileNotFoundError(error.errno, "no specification", str(path)) from error
        raise explain("read", path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BankError(
            f"bank: {path} must be a JSON object with bank_format_version, got something else ({error}). Delete this "
            "file: it is written anew, and the shards beside it are kept, when the feature is next computed."
        ) from error
    if version != FORMAT_VERSION:
        raise BankError(
            f"bank: {path} has format version {version!r}, this featbank reads version {FORMAT_VERSION}"
            f"{_explain_version(version)}, or use another bank folder (`--bank DIR`): its features are computed anew."
        )
    return content


def _explain_version(version: object) -> str:
    if not isinstance(version, int) or version < 0:
        return ". No featbank writes this: restore the file from a copy"
    if version > FORMAT_VERSION:
        return " (the bank was written by a newer featbank). Upgrade featbank"
    return " (the bank was written by an older featbank). Read it with that one"


def read_spec(folder: Place) -> FeatureSpec:
    """Read the ``spec.json`` of a feature folder and check it against the folder's name.

    Raises
    ------
    FileNotFoundError
        If there is none.
    BankError
        If it is damaged, belongs to another folder, or was written by a newer version.
    """
    path = folder / SPEC_NAME
    content = read_json(path)
    try:
        spec = FeatureSpec(content["identity"], content["n_features"], content["dtype"], content["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise BankError(
            f"bank: {path} must hold identity, n_features, dtype and label, got a damaged file ({error}). Delete "
            "this file: it is written anew when the feature is next computed."
        ) from error
    if spec.digest != folder.name:
        raise BankError(
            f"bank: {path} describes feature {spec.digest}, but its folder is named {folder.name}. The file was "
            "damaged or the folder renamed: delete this file (it is written anew) or restore the folder's name."
        )
    return spec
