"""Keeps one block of numbers for each photograph in a memory-mapped file, made once for a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from featbank.digest import digest_json
from featbank.errors import RunError


def keep_blocks(
    folder: Path,
    name: str,
    request: Mapping[str, object],
    shape: tuple[int, ...],
    dtype: type[np.generic],
    make_blocks: Callable[[], Iterable[NDArray[Any]]],
    *,
    cure: str = "Make room.",
    show_progress: bool = False,
) -> NDArray[Any]:
    """Compute blocks and keep them, or open the file where that was done.

    Parameters
    ----------
    folder : Path
        For ``NAME.npy`` and ``NAME.json``; created if needed.
    name : str
        What the blocks are, also for messages and the bar.
    request : mapping
        JSON-able values that decide every number; a finished file of the same request is used again.
    shape : tuple of int
        Of all blocks together, photographs first.
    dtype : type
    make_blocks : callable
        Gives the blocks in order, each of shape ``shape[1:]``; called only where there is no such file.
    cure : str
        What to do when there is no room.
    show_progress : bool
        Show a bar where the standard error is a terminal.

    Returns
    -------
    array of shape ``shape``
        Memory-mapped, read-only.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    digest = digest_json(request)
    path, mark = folder / f"{name}.npy", folder / f"{name}.json"
    if mark.is_file() and json.loads(mark.read_text("utf-8")) == digest:
        return np.load(path, mmap_mode="r")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        # Not through a memory map: a full disk would then kill the process instead of raising.
        with path.open("wb") as file:
            head = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(file, head)
            for block in tqdm(
                make_blocks(), total=shape[0], desc=name, disable=None if show_progress else True
            ):
                file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
        mark.write_text(json.dumps(digest), encoding="utf-8")
    except OSError as error:
        n_bytes = np.prod(shape, dtype=np.float64) * np.dtype(dtype).itemsize
        raise RunError(
            f"student: cannot write {n_bytes / 1e9:.1f} GB of {name} to {path} ({error.strerror}). {cure}"
        ) from error
    return np.load(path, mmap_mode="r")
