"""Reads the LIVE In the Wild Image Quality Challenge database (CLIVE): phone photos with crowd-sourced scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import ImageTable, Layout, Source
from featbank.datasets.locate import ImageFinder
from featbank.errors import DatasetError, DatasetNotFoundError
from featbank.remote import Place, read_regular

N_RATER_TRAINING = 7
"""Images at the head of the list that only taught the raters their task."""

MAX_BYTES = 1 << 24
TIMEOUT_S = 60
"""What reading a file of a thousand names and scores may take."""

_FOLDERS = ("Images", ".")
_SCORES = "AllMOS_release"
_NAMES = "AllImages_release"


def read_live_challenge(source: Source) -> ImageTable:
    """Read the LIVE Challenge scores.

    The release lists 1,169 images "(1162 test images + 7 training images)" [2]_. The first seven taught the raters
    their task and lie in ``Images/trainingImages``; published results leave them out, and so do we. "Training" means
    the raters here: the database has no official split.

    Parameters
    ----------
    source : Source
        ``Data/AllMOS_release.mat``, with ``AllImages_release.mat`` beside it; images in ``Images/``.
        ``AllStdDev_release.mat`` is not read: a spread of ratings is not known beforehand.

    Returns
    -------
    ImageTable
        MOS in [0, 100]; no split, no groups.

    Raises
    ------
    DatasetNotFoundError
        If one of the two files is missing.
    DatasetError
        If a file is no MAT file, lacks its variable, or the numbers of names and scores differ.

    References
    ----------
    .. [1] D. Ghadiyaram, A. C. Bovik, "Massive Online Crowdsourced Study of Subjective and Objective Picture
       Quality", IEEE Transactions on Image Processing 25, 2016.
    .. [2] Readme of the release, 2015.
    """
    mos = _numbers(source.metadata)
    finder = ImageFinder(source.metadata.parent)
    names_file = finder.entry(f"{_NAMES}.mat")
    if names_file is None:
        raise DatasetNotFoundError(
            f"the LIVE Challenge scores at {source.metadata} need {_NAMES}.mat beside them, which holds the names."
        )
    names = _names(names_file)
    if len(names) != len(mos):
        raise DatasetError(
            f"{source.metadata} holds {len(mos)} scores, {names_file} holds {len(names)} names; they are matched by "
            "position and must come from one release."
        )
    if len(names) <= N_RATER_TRAINING:
        raise DatasetError(
            f"{names_file} must list more than the {N_RATER_TRAINING} images that trained the raters, got {len(names)}."
        )
    names, mos = names[N_RATER_TRAINING:], mos[N_RATER_TRAINING:]
    finder = ImageFinder(source.base)
    home = finder.home(names, _FOLDERS)
    paths = finder.locate(names, [(home or _FOLDERS[0],)] * len(names), anywhere=home is None)
    notes = [
        f"The first {N_RATER_TRAINING} images, which trained the raters, are left out.",
        "LIVE Challenge has no official split.",
        *finder.notes(),
    ]
    return LAYOUT.table(source, {"image_id": names, "path": paths, "mos": mos}, notes=notes)


def _variable(path: Place, name: str) -> tuple[str, list[Any]]:
    """Return the type and the values of a variable, read by another process: a damaged MAT file may end it."""
    try:
        data = read_regular(path, MAX_BYTES, DatasetError)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"no file at {path}.") from error
    command = [sys.executable, "-P", str(Path(__file__).with_name("_mat.py")), name]
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=TIMEOUT_S)  # noqa: S603 (this very interpreter)
        answer = json.loads(done.stdout)
    except (ValueError, subprocess.TimeoutExpired) as error:
        raise DatasetError(
            f"{path} is damaged: the process that read it was ended by it. Copy or download the file again."
        ) from error
    if "error" in answer:
        raise DatasetError(f"{path} is not a MATLAB file of version 7 or older: {answer['error']}.")
    if "found" in answer:
        raise DatasetError(f"{path} must hold the variable {name!r}, got {answer['found']}.")
    return answer["dtype"], answer["values"]


def _numbers(path: Place) -> NDArray[np.float64]:
    dtype, values = _variable(path, _SCORES)
    if np.dtype(dtype).kind not in "fiu":
        raise DatasetError(f"{path}: {_SCORES!r} must hold numbers, got {dtype}.")
    return np.array(values, dtype=np.float64)


def _names(path: Place) -> list[str]:
    _, values = _variable(path, _NAMES)
    names = [str(value) for value in values]
    if not all(names) or len(set(names)) != len(names):
        raise DatasetError(f"{path}: {_NAMES!r} must hold one name per image, each once.")
    return names


LAYOUT = Layout(
    name="live-challenge",
    title="LIVE In the Wild Image Quality Challenge",
    n_images=1162,
    licence="free to use and distribute with its copyright notice (University of Texas at Austin)",
    reference="Ghadiyaram, Bovik 2016, IEEE TIP 25",
    mos_range=(0.0, 100.0),
    markers=("Data/AllMOS_release.mat", "AllMOS_release.mat"),
    header=frozenset(),
    read=read_live_challenge,
)
