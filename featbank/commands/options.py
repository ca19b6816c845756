"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

import argparse
import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from featbank.errors import ClusterError, EncoderError

if TYPE_CHECKING:
    from featbank.on_cluster import ClusterUse


MAX_COUNT = 10**9
"""Largest number of workers, trials, photos and the like that an option takes."""


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1 for argparse."""
    return _between(int(text), 1, MAX_COUNT)


def non_negative_int(text: str) -> int:
    """Parse a whole number of at least 0 for argparse."""
    return _between(int(text), 0, MAX_COUNT)


def seed(text: str) -> int:
    """Parse the seed of a random generator for argparse."""
    return _between(int(text), 0, 2**32 - 1)


def _between(number: int, low: int, high: int) -> int:
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be at least {low} and at most {high}, got {number}")
    return number


def fraction(text: str) -> float:
    """Parse a share of at least 0 and below 1 for argparse."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return number


def non_negative_number(text: str) -> float:
    """Parse a finite number of at least 0 for argparse."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be finite and not negative, got {text}")
    return number


def shard_spec(text: str) -> tuple[int, int]:
    """Parse ``I/N``, part I (from 0) of N, for argparse."""
    index, slash, count = text.partition("/")
    if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise argparse.ArgumentTypeError(f"must be spelt I/N, such as 0/2, got {text!r}")
    if not int(index) < int(count):
        raise argparse.ArgumentTypeError(
            f"parts are counted from 0: I must be below N, such as 0/2 and 1/2, got {text!r}"
        )
    return int(index), int(count)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the dataset and where its images lie."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="dataset folder in a known layout, or CSV with columns path,mos[,split,subset,group]; or the URL of one, "
        "such as s3://bucket/photos",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the images, if they do not lie beside the metadata"
    )


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe."""
    parser.add_argument(
        "--recipe",
        metavar="R",
        default="starter",
        help="name of a built-in recipe or a TOML file (default: starter)",
    )
    add_code(parser)


def add_code(parser: argparse.ArgumentParser) -> None:
    """Add the permission to run encoders that are files of Python."""
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="run the Python files that the recipe or model names as encoders (file:...); they are programs of whoever "
        "wrote them",
    )


def add_bank(parser: argparse.ArgumentParser) -> None:
    """Add the bank's folder."""
    parser.add_argument(
        "--bank",
        metavar="DIR",
        default="bank",
        help="folder of the feature bank, or its URL in an object store, s3://bucket/bank (default: bank)",
    )


def add_compute(parser: argparse.ArgumentParser) -> None:
    """Add where and how encoders run."""
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where networks run (default: auto)"
    )
    parser.add_argument(
        "--engine",
        choices=("torch", "onnxruntime", "openvino"),
        help="what runs networks on processors; compared with torch before it is used (default: torch)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="numerics of networks; weight-free encoders always use fp32 (default: fp32)",
    )
    add_workers(parser)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the number of processes."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive_int,
        help="processes (default: the processors this process may use)",
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the cluster that computes folds."""
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="let the workers of a cluster compute the folds: dask://HOST:PORT of a Dask scheduler, ray://HOST:PORT or "
        "spark://HOST:PORT",
    )


def cluster_of(options: argparse.Namespace) -> AbstractContextManager[ClusterUse | None]:
    """Return the context in which a cluster computes folds, or one that changes nothing.

    Raises
    ------
    ClusterError
        If the address is misspelt, or ``--workers`` is given as well; on entering, if the cluster cannot be used.
    """
    if options.cluster is None:
        return nullcontext()
    from featbank.on_cluster import check_address, on_cluster

    check_address(options.cluster)
    if options.workers is not None:
        raise ClusterError(
            f"--workers {options.workers} means this machine, but the workers of {options.cluster} compute the folds. "
            "Leave it out, and start as many workers there."
        )
    return on_cluster(options.cluster, packages=("regressors",))


def add_memory_limit(parser: argparse.ArgumentParser) -> None:
    """Add the memory that a fit may take."""
    parser.add_argument(
        "--memory-limit",
        metavar="GB",
        type=positive_number,
        help="gigabytes that the fit may take; a larger table of ridges is read by blocks from the bank, which gives "
        "the same numbers, and kernels without room are refused (default: four fifths of the memory that is free)",
    )


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text}")
    return number


def apply_compute(options: argparse.Namespace) -> None:
    """Check where and how encoders run, and tell the encoders of this process and of its workers.

    Raises
    ------
    EncoderError
        If the device or the engine is not there.
    """
    from featbank.encoders.engine import check_engine

    check_device(options.device)
    if options.engine is not None:
        check_engine(options.engine)
        os.environ["FEATBANK_ENGINE"] = options.engine
    if options.device != "auto":
        os.environ["FEATBANK_DEVICE"] = options.device


def check_device(device: str) -> None:
    """Refuse a device that is not there: running elsewhere silently would surprise.

    Raises
    ------
    EncoderError
        If ``cuda`` was asked for and torch or a CUDA device is missing.
    """
    if device != "cuda":
        return
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return
        found = "torch sees no CUDA device"
    else:
        found = "torch is not installed"
    raise EncoderError(f"--device cuda: {found}. Use --device auto or cpu, or install torch with CUDA.")
