"""Model files without pickle: one skops archive with a readable header, written atomically, checked when loaded.

The file is an ordinary skops file (a zip archive) with one more entry, ``featbank.json``, that can be read
without loading anything: format version, library versions, the caller's manifest, and the model's own
predictions on three fixed rows. Loading repeats these predictions; so what is checked across library versions is
whether the model still computes the same, not whether version strings agree.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted
from skops.io.exceptions import UnsupportedTypeException, UntrustedTypesFoundException

from regressors.checks import Estimator, FloatArray, Table

FORMAT = "featbank-model"
FORMAT_VERSION = 1
HEADER = "featbank.json"

TRUSTED_TYPES = (
    # Ours.
    "regressors.bands.BandScaler",
    "regressors.bands.SelectBands",
    "regressors.crops.CropEnsemble",
    "regressors.ensemble.BandEnsemble",
    "regressors.svr.UnitSVR",
    # Splitters that may stand in ``cv``; they hold numbers only. Estimators of scikit-learn, arrays of numpy
    # and plain containers are trusted by skops itself.
    "sklearn.model_selection._split.GroupKFold",
    "sklearn.model_selection._split.GroupShuffleSplit",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.LeaveOneGroupOut",
    "sklearn.model_selection._split.RepeatedKFold",
    "sklearn.model_selection._split.ShuffleSplit",
    "sklearn.model_selection._split.StratifiedGroupKFold",
)
"""All types beyond those of skops that a model file may hold."""

_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy", "skops")
_N_PROBES = 3
# Sums in another order move predictions by far less; another algorithm or other coefficients by far more.
_PROBE_TOLERANCE = 1e-6


class ModelFileError(ValueError):
    """A model file that cannot be written or must not be loaded."""


class ModelVersionWarning(UserWarning):
    """A model file written under another scikit-learn release, whose predictions were checked and agree."""


def save_model(path: str | Path, model: Estimator, manifest: Mapping[str, Any]) -> Path:
    """Write a fitted model and its manifest to one file.

    Parameters
    ----------
    path : str or Path
        The file, by custom ``model.skops``. An existing file is replaced in one step; a failed write
        leaves it as it was.
    model : fitted estimator
        A regressor of this package, or a scikit-learn estimator or pipeline.
    manifest : mapping of str to JSON values
        What the model needs to be used: feature specifications, MOS scale, versions.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ModelFileError
        If the model holds a type that `load_model` would refuse, for instance a function as scorer.
    TypeError, ValueError
        If the manifest cannot be written as strict JSON.
    OSError
        If the file cannot be written.
    """
    check_is_fitted(model)
    target = Path(path)
    try:
        text = json.dumps(dict(manifest), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"save_model: manifest must be strict JSON, got {error}. Turn arrays into lists, NaN into null."
        ) from error
    try:
        data = skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED)
    except UnsupportedTypeException as error:
        raise ModelFileError(f"save_model: the model holds something skops cannot write: {error}.") from error
    if untrusted := _untrusted(data):
        raise ModelFileError(
            f"save_model: the model holds types that load_model does not trust, got {untrusted}. "
            "Give scorers by name, and folds as numbers or explicit lists."
        )
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": _versions(),
        "probe": _probe(model),
        "manifest": json.loads(text),
    }
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, json.dumps(header, indent=1, allow_nan=False))
    _write_atomically(target, buffer.getvalue())
    return target


def load_model(path: str | Path) -> tuple[Estimator, dict[str, Any]]:
    """Read a model and its manifest.

    Parameters
    ----------
    path : str or Path
        A file written by `save_model`.

    Returns
    -------
    model : fitted estimator
        Predicts what the saved one predicted.
    manifest : dict
        As it was given to `save_model`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is no model file, has another format version, is damaged, holds a type outside `TRUSTED_TYPES`
        (nothing of it has been built then), or predicts something else than when it was saved.

    Warns
    -----
    ModelVersionWarning
        If scikit-learn's major or minor version differs from the one that wrote the file; the predictions on
        the stored rows were repeated and agree.
    """
    source = Path(path)
    data = source.read_bytes()
    header = _read_header(source, data)
    if untrusted := _untrusted(data, source):
        raise ModelFileError(
            f"load_model: {source} holds types that are not trusted, got {untrusted}. They could run code while "
            "being loaded, so nothing was built. Only load files that save_model wrote; if this one claims to be, ask "
            "where it comes from."
        )
    with warnings.catch_warnings():
        # Judged below by what the model predicts.
        warnings.simplefilter("ignore", category=InconsistentVersionWarning)
        try:
            model = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
        except _BROKEN as error:
            raise _damaged(source, error) from error
        _check_probe(source, model, header)
    written, here = header["versions"]["scikit-learn"], version("scikit-learn")
    if written.split(".")[:2] != here.split(".")[:2]:
        warnings.warn(
            f"load_model: {source} was written with scikit-learn {written}, this is {here}. Its predictions on the "
            "stored rows agree; to be rid of this message, save the model again.",
            ModelVersionWarning,
            stacklevel=2,
        )
    manifest: dict[str, Any] = header["manifest"]
    return model, manifest


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read the manifest of a model file without loading the model.

    Parameters
    ----------
    path : str or Path
        A file written by `save_model`.

    Returns
    -------
    dict
        As it was given to `save_model`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is no model file of this format version.
    """
    source = Path(path)
    manifest: dict[str, Any] = _read_header(source, source.read_bytes())["manifest"]
    return manifest


# What a cut, edited or foreign archive makes the readers of zip, JSON and skops raise.
# Damaged contents end in errors of the libraries that happen to read them first, not in one of their own.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    UntrustedTypesFoundException,
    AttributeError,
    EOFError,
    ImportError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    NotImplementedError,
)


def _damaged(source: Path, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"load_model: {source} is damaged or no model file ({type(error).__name__}: {error}). "
        "Fit the recipe again, or copy the file anew from where it was written."
    )


def _read_header(source: Path, data: bytes) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            header = json.loads(archive.read(HEADER)) if HEADER in archive.namelist() else None
    except _BROKEN as error:
        raise _damaged(source, error) from error
    if header is None:
        raise ModelFileError(
            f"load_model: {source} must hold an entry {HEADER!r}, as save_model writes it, got an archive without. "
            "It may be a plain skops file or another archive; this reader does not guess."
        )
    found = (header.get("format"), header.get("format_version")) if isinstance(header, dict) else (None, None)
    if found != (FORMAT, FORMAT_VERSION):
        raise ModelFileError(
            f"load_model: {source} must have format {FORMAT!r} version {FORMAT_VERSION}, got {found[0]!r} version "
            f"{found[1]!r}. Use the release of featbank that wrote it, or fit the recipe again with this one."
        )
    wanted = {"versions": dict, "probe": list, "manifest": dict}
    wrong = [name for name, kind in wanted.items() if not isinstance(header.get(name), kind)]
    if wrong or not isinstance(header["versions"].get("scikit-learn"), str):
        raise ModelFileError(
            f"load_model: the header of {source} is incomplete: {wrong or ['versions']}. The file was edited."
        )
    return header


def _untrusted(data: bytes, source: Path | None = None) -> list[str]:
    try:
        found = skops.io.get_untrusted_types(data=data)
    except _BROKEN as error:
        raise _damaged(source or Path("the model"), error) from error
    return sorted(set(found) - set(TRUSTED_TYPES))


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def _probe_rows(model: Estimator) -> Table:
    """Make the fixed rows a model is asked about: small binary fractions, the same on every machine."""
    row, column = np.mgrid[0:_N_PROBES, 0 : model.n_features_in_]
    values = ((7 * row + 3 * column) % 11 - 5) / 4
    names = getattr(model, "feature_names_in_", None)
    return values if names is None else pd.DataFrame(values, columns=names)


def _probe(model: Estimator) -> list[float]:
    predicted: FloatArray = np.asarray(model.predict(_probe_rows(model)), dtype=np.float64)
    return [float(value) for value in predicted]


def _check_probe(source: Path, model: Estimator, header: Mapping[str, Any]) -> None:
    stored = np.asarray(header["probe"], dtype=np.float64)
    try:
        now = np.asarray(_probe(model))
    except _BROKEN as error:
        raise _damaged(source, error) from error
    scale = float(np.abs(stored).max(initial=0.0))
    if stored.shape != now.shape or not np.allclose(now, stored, rtol=0, atol=_PROBE_TOLERANCE * scale):
        raise ModelFileError(
            f"load_model: {source} must predict {stored.tolist()} on its stored rows, got {now.tolist()}. "
            f"It was written with {header['versions']}, or was edited. Use those versions, or fit the recipe again."
        )


def _write_atomically(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a model file is as readable as any other file of its folder.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
