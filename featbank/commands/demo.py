"""Write the built-in photo set: rendered 4K scenes, a camera model, simulated raters, UHD-IQA layout.

Everything made from it says that it is a simulation and proves nothing about real photos. An interrupted
call is taken up where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from featbank.commands import Output
from featbank.commands.options import add_workers, positive_int, seed

EXAMPLE = "example: featbank demo demo --photos 300"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="DIR", help="folder to write")
    parser.add_argument(
        "--photos", metavar="N", type=positive_int, default=300, help="number of photos (default: 300)"
    )
    parser.add_argument(
        "--width", metavar="PX", type=positive_int, default=3840, help="width in pixels (default: 3840)"
    )
    parser.add_argument(
        "--seed", metavar="S", type=seed, default=0, help="another seed gives other photos (default: 0)"
    )
    add_workers(parser)


def run(options: argparse.Namespace) -> Output:
    """Render what is missing."""
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
    document = {"folder": str(folder), "photos": options.photos, "simulation": True}
    return Output(
        document,
        f"{options.photos} rendered photos in {folder} (a simulation: it proves nothing about real photos)",
    )
