"""Model files without pickle: one skops archive with a readable header, written atomically, checked when loaded.

The archive has one more entry, ``featbank.json``: format version, library versions, the caller's manifest, and the
model's own predictions on three fixed rows, which loading repeats. So what is checked across library versions is
whether the model still computes the same.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import sys
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import sklearn.utils
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from regressors.checks import Estimator, FloatArray, Table

FORMAT = "featbank-model"
FORMAT_VERSION = 1
HEADER = "featbank.json"
_SCHEMA = "schema.json"

TRUSTED_TYPES = (
    "regressors.bands.BandScaler",
    "regressors.bands.SelectBands",
    "regressors.ensemble.BandEnsemble",
    "regressors.svr.UnitSVR",
    "sklearn.linear_model._ridge.Ridge",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.MinMaxScaler",
    "sklearn.preprocessing._data.RobustScaler",
    "sklearn.preprocessing._data.StandardScaler",
    # Splitters that may stand in ``cv``; they hold numbers only.
    "sklearn.model_selection._split.GroupKFold",
    "sklearn.model_selection._split.GroupShuffleSplit",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.LeaveOneGroupOut",
    "sklearn.model_selection._split.RepeatedKFold",
    "sklearn.model_selection._split.ShuffleSplit",
    "sklearn.model_selection._split.StratifiedGroupKFold",
)
"""All estimators and splitters that a model file may hold: those that this package fits; skops alone trusts many more.

Compiled code of others, such as libsvm's, believes what a file says of its arrays.
"""

_PLAIN_TYPES = {
    "DictNode": {"builtins.dict"},
    "JsonNode": {"builtins.str"},
    "ListNode": {"builtins.list"},
    "NdArrayNode": {
        f"numpy.{name}" for name in ("ndarray", "bool", "float32", "float64", "int32", "int64", "str_")
    },
    "TupleNode": {"builtins.tuple"},
    "TypeNode": {"builtins.float", "builtins.int", "builtins.str"},
}
"""How skops reads everything else, and what may be read so."""

_SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    "BandEnsemble": {"column_means_": ("n",), "weights_": ("m",), "intercept_": ()},
    "BandScaler": {"column_weights_": ("n",)},
    "Ridge": {"coef_": ("n",), "intercept_": ()},
    "MinMaxScaler": {"min_": ("n",), "scale_": ("n",)},
    "RobustScaler": {"center_": ("n",), "scale_": ("n",)},
    "SelectBands": {"columns_": ("k",)},
    "StandardScaler": {"mean_": ("n",), "var_": ("n",), "scale_": ("n",)},
    "UnitSVR": {
        "x_mean_": ("n",), "support_": ("s",), "dual_coef_": ("s",), "support_vectors_": ("s", "n"), "intercept_": (),
        "y_mean_": (), "y_scale_": (), "total_variance_": (),
    },
}  # fmt: skip
"""Shapes of what predictions are made of: ``n`` columns; other letters stand for what they first meet."""

_JSON_BYTES, _ARRAY_BYTES = 16 << 20, 256 << 20
"""What the texts, and the arrays, of a model file may unpack to; more where the file itself is large."""

_ARRAY_LIBRARIES = ("cupy", "dask", "torch")


def import_skops(*, with_estimators: bool = True) -> ModuleType:
    """Import skops without what it makes scikit-learn look through: the libraries of other arrays, torch among them.

    It lists all of scikit-learn's estimators, and for that every sub-package is imported, those that adapt other
    libraries too: seconds in each process where torch is installed. Model files of this package need no such list; a
    process that reads no others may do without (``with_estimators``).
    """
    adapters = [f"sklearn.externals.array_api_compat.{library}" for library in _ARRAY_LIBRARIES]
    barred = [name for name in adapters if name not in sys.modules]
    sys.modules.update(dict.fromkeys(barred))  # type: ignore[arg-type]  # None: not to be imported
    listing = sklearn.utils.all_estimators
    try:
        if not with_estimators:
            sklearn.utils.all_estimators = list  # which lists none
        import skops.io

        return skops.io
    finally:
        sklearn.utils.all_estimators = listing
        for name in barred:
            del sys.modules[name]


_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy", "skops")
_N_PROBES = 3
# Sums in another order move predictions by far less; another algorithm or other coefficients by far more.
_PROBE_TOLERANCE = 1e-6


class ModelFileError(ValueError):
    """A model file that cannot be written or must not be loaded."""


class ModelVersionWarning(UserWarning):
    """A model file written under another scikit-learn release, whose predictions were checked and agree."""


def save_model(path: str | Path, model: Estimator, manifest: Mapping[str, Any]) -> Path:
    """Write a fitted model and its manifest to one file; an existing one is replaced in one step.

    Parameters
    ----------
    path : str or Path
    model : fitted estimator
        A regressor of this package, or a scikit-learn estimator or pipeline.
    manifest : mapping of str to JSON values
        What the model needs to be used: feature specifications, MOS scale, versions.

    Raises
    ------
    ModelFileError
        If the model holds a type that `load_model` would refuse, for instance a function as scorer.
    TypeError, ValueError
        If the manifest cannot be written as strict JSON.
    OSError
        If the file cannot be written; one that was there stays as it was.
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
        data = import_skops().dumps(model, compression=zipfile.ZIP_DEFLATED)
    except TypeError as error:  # as which skops raises its own
        raise ModelFileError(f"save_model: the model holds something skops cannot write: {error}.") from error
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        untrusted = _untrusted(json.loads(archive.read(_SCHEMA)))[0]
    if untrusted:
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
    """Read a model and its manifest from the file ``path``, as they were given to `save_model`.

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
    with _telling_damage(source), _opened(source) as archive:
        header = _read_header(source, archive)
        untrusted, n_bytes = _check_contents(archive)
    if untrusted:
        raise ModelFileError(
            f"load_model: {source} holds types that are not trusted, got {untrusted}. They could run code while "
            "being loaded, so nothing was built. Fit the recipe again if an earlier release wrote the file; otherwise "
            "ask where it comes from."
        )
    with _telling_damage(source), warnings.catch_warnings():
        # Judged below by what the model predicts.
        warnings.simplefilter("ignore", category=InconsistentVersionWarning)
        model = import_skops().load(source, trusted=list(TRUSTED_TYPES))
        _check_fitted(model, n_bytes)
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


# What a cut, edited or foreign archive makes the readers of zip, JSON and skops raise: damaged contents end in errors
# of the libraries that happen to read them first, not in one of their own.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError,
    RuntimeError, TypeError, ValueError, tokenize.TokenError,
)  # fmt: skip


@contextmanager
def _telling_damage(source: Path) -> Iterator[None]:
    try:
        yield
    except (ModelFileError, FileNotFoundError):
        raise
    except _BROKEN as error:
        raise ModelFileError(
            f"load_model: {source} is damaged or no model file ({type(error).__name__}: {error}). "
            "Fit the recipe again, or copy the file anew from where it was written."
        ) from error


@contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """Open a model file as an archive of entries that unpack to what a file of its size may hold."""
    with zipfile.ZipFile(source) as archive:
        entries, size = archive.infolist(), source.stat().st_size
        packed = sum(entry.compress_size for entry in entries)
        allowed = {
            HEADER: _JSON_BYTES,
            _SCHEMA: _JSON_BYTES + 16 * packed,
            "its arrays": max(_ARRAY_BYTES, 20 * packed),
            "its entries, packed": size,
        }
        found = {name: sum(e.file_size for e in entries if e.filename == name) for name in (HEADER, _SCHEMA)}
        found["its arrays"] = sum(entry.file_size for entry in entries) - sum(found.values())
        found["its entries, packed"] = packed
        for name, most in allowed.items():
            if found[name] > most:
                raise ModelFileError(
                    f"load_model: {source} claims {found[name]} bytes for {name}, expected at most {most} in a model "
                    f"file of {size} bytes; nothing of it was unpacked. Ask where it comes from."
                )
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("two entries of one name")
        if {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("entries are neither stored nor deflated")
        if any(not 0 <= entry.header_offset < size for entry in entries):
            raise ValueError("an entry lies outside the file")
        yield archive


def _read_json(archive: zipfile.ZipFile, name: str) -> Any:  # noqa: ANN401 - as it comes
    """Parse a text of an archive, unless it is of many tiny things, which take much more room than their text."""
    text = archive.read(name)
    if text.count(b",") + text.count(b"[") + text.count(b"{") > _JSON_BYTES // 16 + len(text) // 20:
        raise ValueError(f"{name} has too many parts for its length")
    return json.loads(text)


def _read_header(source: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    header = _read_json(archive, HEADER) if HEADER in archive.namelist() else None
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


def _check_contents(archive: zipfile.ZipFile) -> tuple[list[str], int]:
    """Check arrays and types before skops sees them; return the types that are not trusted, and the bytes of arrays."""
    untrusted, files = _untrusted(_read_json(archive, _SCHEMA))
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    n_bytes = sum(sizes[file] for file in files)  # skops reads an array anew for each place that names it
    if n_bytes > max(_ARRAY_BYTES, 20 * sum(sizes.values())):
        raise ValueError(f"its places name arrays of {n_bytes} bytes in all")
    for file in set(files):
        with archive.open(file) as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
            if dtype.hasobject or stream.tell() + math.prod(shape) * dtype.itemsize != sizes[file]:
                raise ValueError(f"{file} claims the shape {shape} of {dtype}, which its bytes are not")
    return untrusted, n_bytes


def _untrusted(schema: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Walk the tree of a schema; return the types that are not trusted, and the array files it names."""
    untrusted, files = set(), []
    waiting: list[Any] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and "__loader__" in node:
            name, loader = f"{node['__module__']}.{node['__class__']}", node["__loader__"]
            if name not in (TRUSTED_TYPES if loader == "ObjectNode" else _PLAIN_TYPES.get(loader, ())):
                untrusted.add(name)
            if node.get("type") == "numpy":
                files.append(node["file"])
        parts = node.values() if isinstance(node, dict) else node
        waiting += [part for part in parts if isinstance(part, dict | list)]
    return sorted(untrusted), files


def _check_fitted(model: object, n_bytes: int) -> None:
    """Compare the arrays of a loaded model with `_SHAPES` and each other, before anything is computed with them."""
    kind = next((base.__name__ for base in type(model).__mro__ if base.__name__ in _SHAPES), "")
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else []
    parts = steps or [getattr(model, "scaler_", None), *getattr(model, "members_", ())]
    if not (kind or steps) or (steps and not hasattr(steps[-1], "predict")):
        raise ValueError(f"{type(model).__name__} is no fitted regressor or step of one")
    n_columns = model.n_features_in_  # type: ignore[attr-defined]
    if type(n_columns) is not int or not 0 < n_columns <= n_bytes:
        raise ValueError(f"{type(model).__name__} claims {n_columns!r} columns")
    letters = {"n": n_columns, **({"m": len(parts) - 1} if kind == "BandEnsemble" else {})}
    for name, dimensions in _SHAPES.get(kind, {}).items():
        if name in ("var_", "scale_") and not getattr(model, "with_std", True):
            continue  # not set, and not read
        value = np.asarray(getattr(model, name))
        expected = tuple(
            letters.setdefault(letter, length)
            for letter, length in zip(dimensions, value.shape, strict=False)
        )
        if value.dtype.kind not in "fi" or len(dimensions) != value.ndim or value.shape != expected:
            raise ValueError(f"{kind}.{name} is {value.dtype} of shape {value.shape}, expected {expected}")
    names = getattr(model, "feature_names_in_", None)
    if names is not None and np.shape(names) != (n_columns,):
        raise ValueError(f"{type(model).__name__} names {np.shape(names)} of {n_columns} columns")
    for part in parts:
        if part is not None:
            _check_fitted(part, n_bytes)


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
    now = np.asarray(_probe(model))
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
