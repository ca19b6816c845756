"""Keeps training crops of photographs in one memory-mapped file, so that each photograph is decoded once.

Crops are those of the student's own view on randomly trimmed copies of the photograph: trimming moves every
crop and changes no pixel, so quality stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from featbank.digest import seed_from
from featbank.distill.kept import keep_blocks
from featbank.errors import RunError
from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX
from featbank.images import read_photo
from featbank.views import View

_TRIM: Final = 0.12
"""Largest share of a side that is trimmed."""


@dataclass(frozen=True)
class CropFile:
    """Crops of several photographs.

    Attributes
    ----------
    crops : uint8 array of shape (n_photos, n_crops, height, width, 3)
        Memory-mapped; the first crops of each photograph are those of the untrimmed view.
    """

    crops: NDArray[np.uint8]


def crop_size(view: View) -> tuple[int, int]:
    """Return height and width of a view's crops.

    Raises
    ------
    RunError
        If they are not the same on every photograph, or the view has a second scale.
    """
    sizes = {
        view.geometry(h, w)[0][1:] for h, w in ((UHD_HEIGHT_PX, UHD_WIDTH_PX), (3000, 2000), (900, 1600))
    }
    if len(sizes) > 1 or len(view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)) > 1:
        raise RunError(
            f"distill: a student's view must give crops of one size at one scale, but {view.name!r} does not. "
            "For example tiles_5x5/center_224."
        )
    return next(iter(sizes))


def _cut(path: str, digest: str, view: View, n_crops: int, seed: int) -> NDArray[np.uint8]:
    """Take half of the crops from the view itself and half from trimmed copies."""
    pixels = read_photo(path).pixels
    rng = np.random.default_rng(seed_from("crops", str(seed), digest))
    height, width = pixels.shape[:2]
    found: list[NDArray[np.uint8]] = []
    while sum(map(len, found)) < n_crops:
        if found:
            trims = rng.uniform(0.0, _TRIM / 2.0, 4)
            top, left = int(trims[0] * height), int(trims[1] * width)
            bottom, right = height - int(trims[2] * height), width - int(trims[3] * width)
            source = np.ascontiguousarray(pixels[top:bottom, left:right])
        else:
            source = pixels
        crops = view.scales(source, seed_from(digest, view.name, str(len(found))))[0]
        n_wanted = max(1, n_crops // 2)
        found.append(crops[np.sort(rng.permutation(len(crops))[:n_wanted])])
    return np.concatenate(found)[:n_crops]


def keep_crops(
    photos: Sequence[tuple[str, str]],
    view: View,
    folder: Path,
    *,
    n_crops: int = 16,
    seed: int = 0,
    workers: int = 1,
    show_progress: bool = False,
) -> CropFile:
    """Cut the crops of photographs, or open the file where that was done.

    Parameters
    ----------
    photos : sequence of (path, digest)
    view : View
    folder : Path
        For ``crops.npy``; a finished file of the same request is used again.
    n_crops : int
        Of each photograph.
    seed : int
    workers : int
        Processes.
    show_progress : bool
        Show a bar where the standard error is a terminal.

    Raises
    ------
    RunError
        If the view does not fit or the file cannot be written.
    ImageError
        If a photograph cannot be read.
    """
    height, width = crop_size(view)
    request = {
        "photos": [digest for _, digest in photos],
        "view": view.identity(),
        "n": n_crops,
        "seed": seed,
    }
    crops = keep_blocks(
        folder,
        "crops",
        request,
        (len(photos), n_crops, height, width, 3),
        np.uint8,
        lambda: Parallel(n_jobs=min(workers, len(photos)), return_as="generator")(
            delayed(_cut)(file, key, view, n_crops, seed) for file, key in photos
        ),
        cure="Make room, or ask for fewer with --crops.",
        show_progress=show_progress,
    )
    return CropFile(crops)
