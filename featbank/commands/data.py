"""The commands demo, check and doctor: photos, datasets, the machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from featbank import commands as opt
from featbank.commands import Command, Output

_DEMO_OPTIONS = (
    opt.argument("folder DIR", "folder to write"),
    opt.argument("--photos N", "number of photos", opt.positive_int, 300),
    opt.argument("--width PX", "width in pixels", opt.positive_int, 3840),
    opt.argument("--seed S", "another seed gives other photos", opt.seed, 0),
    opt.WORKERS,
)


def _demo(options: argparse.Namespace) -> Output:
    """Write the built-in photo set: rendered 4K scenes, a camera model, simulated raters, UHD-IQA layout.

    Everything made from it says that it is a simulation and proves nothing about real photos. An interrupted call
    is taken up where it stopped.

    For example:
      featbank demo demo --photos 300
    """
    from joblib import cpu_count
    from tqdm import tqdm

    from featbank.demo import write_demo
    from featbank.errors import DatasetError

    with tqdm(total=options.photos, unit="photo", desc="demo", disable=None) as bar:

        def show(n_done: int, n_photos: int) -> None:
            bar.update(n_done - bar.n)

        try:
            folder = write_demo(
                Path(options.folder),
                n_photos=options.photos,
                width=options.width,
                seed=options.seed,
                workers=options.workers or cpu_count(),
                progress=show,
            )
        except ValueError as error:  # an argument out of its range; the message names it
            raise DatasetError(str(error)) from error
    return Output(
        {"folder": str(folder), "photos": options.photos, "simulation": True},
        f"{options.photos} rendered photos in {folder} (a simulation: it proves nothing about real photos)",
    )


_CHECK_OPTIONS = (
    opt.DATA,
    opt.IMAGES,
    opt.WORKERS,
    opt.switch("--no-decode", "do not decode the images (quick; finds no damaged file)"),
)


def _check(options: argparse.Namespace) -> Output:
    """Read a dataset and report what is in it, before hours are spent on it.

    Counts by split and subset, MOS range, groups and how far they overlap, missing, unreadable and duplicate files,
    photos of one scene on both sides of the split, and what a constant prediction scores.

    For example:
      featbank check ~/uhd-iqa
    """
    from joblib import cpu_count

    from featbank.datasets import check_dataset, render_check

    table = opt.read_data(options)
    document = check_dataset(table, decode=not options.no_decode, workers=options.workers or cpu_count())
    return Output(document, render_check(document))


_DOCTOR_OPTIONS = (opt.BANK,)


def _doctor(options: argparse.Namespace) -> Output:
    """Look at the machine and the installation, and say what is missing or could be faster.

    Cores and memory, libraries, the BLAS behind numpy and SciPy with its kernels, threads and speed, torch and its
    devices, the weights folder, and whether the bank can be written. Ends with 1 if something will not work.

    For example:
      featbank doctor --bank bank
    """
    from featbank.doctor import examine, render
    from featbank.remote import as_place

    document = examine(as_place(options.bank))
    return Output(document, render(document), exit_code=1 if document["problems"] else 0)


COMMANDS = {
    "demo": Command(_DEMO_OPTIONS, _demo),
    "check": Command(_CHECK_OPTIONS, _check),
    "doctor": Command(_DOCTOR_OPTIONS, _doctor),
}
