"""The subcommands by topic: thin, as the work is done elsewhere. Here is what they share, one word for one thing."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featbank.errors import ClusterError, EncoderError, redact

if TYPE_CHECKING:
    from featbank.cluster import ClusterUse
    from featbank.datasets import ImageTable

SIMULATION = "SIMULATION: rendered photos and simulated raters; this proves nothing about real photos."


@dataclass(frozen=True)
class Output:
    """What a command gives back: a JSON-able document, the same for people, and the exit code."""

    document: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Command:
    """A subcommand: its arguments, and its work, whose docstring is its help."""

    arguments: tuple[Callable[[argparse.ArgumentParser], object], ...]
    run: Callable[[argparse.Namespace], Output]


def say(line: str) -> None:
    """Print a line of progress on standard error, without credentials of URLs."""
    print(redact(line), file=sys.stderr)


def render_rows(rows: list[dict[str, Any]]) -> str:
    """Lay rows of equal keys out as aligned columns."""
    if not rows:
        return "none"
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


MAX_COUNT = 10**9
"""Largest number of workers, trials, photos and the like that an option takes."""


def whole(low: int, high: int = MAX_COUNT) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``low`` to ``high``, for argparse."""

    def parse(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be at least {low} and at most {high}, got {text}")
        return int(text)

    parse.__name__ = "int"  # which argparse names in its message
    return parse


def real(holds: Callable[[float], bool], rule: str) -> Callable[[str], float]:
    """Return a parser of numbers for which a rule holds, for argparse."""

    def parse(text: str) -> float:
        if not holds(float(text)):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text}")
        return float(text)

    parse.__name__ = "float"
    return parse


positive_int, non_negative_int, seed = whole(1), whole(0), whole(0, 2**32 - 1)
fraction = real(lambda number: 0 <= number < 1, "at least 0 and below 1")
positive_number = real(lambda number: 0 < number < math.inf, "above 0 and finite")
non_negative_number = real(lambda number: 0 <= number < math.inf, "finite and not negative")


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


def argument(
    usage: str,
    text: str = "",
    kind: Callable[[str], Any] = str,
    default: object = None,
    **details: Any,  # noqa: ANN401
) -> Callable[[argparse.ArgumentParser], object]:
    """Declare an argument by its usage: ``--seed S``, ``--device auto|cpu``, ``paths PATH...``, ``runs [RUN...]``.

    Its help ends in its default.
    """
    name, _, shown = usage.partition(" ")
    if "|" in shown:
        details["choices"], details["metavar"] = tuple(map(kind, shown.split("|"))), shown
    else:
        details["metavar"] = shown.strip("[.]") or None
        if shown.endswith(("]", "...")):
            details["nargs"] = "*" if shown.endswith("...]") else "?" if shown.endswith("]") else "+"
    if default not in (None, "", []):
        text = f"{text} (default: {default})" if text else f"default: {default}"
    return lambda parser: parser.add_argument(name, help=text or None, type=kind, default=default, **details)


def switch(name: str, text: str, **details: Any) -> Callable[[argparse.ArgumentParser], object]:  # noqa: ANN401
    """Declare an option that is there or not."""
    return lambda parser: parser.add_argument(name, action="store_true", help=text, **details)


def column_names(text: str) -> dict[str, str]:
    """Parse ``image=img_name,mos=score``, for argparse."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and column.strip() for name, _, column in pairs):
        raise argparse.ArgumentTypeError(
            f"must be spelt image=NAME,mos=NAME,split=NAME,group=NAME, got {text!r}"
        )
    return {name.strip().casefold(): column.strip() for name, _, column in pairs}


_READING = ("images", "columns", "mos", "encoding")


def _reading(prefix: str, whose: str) -> Callable[[argparse.ArgumentParser], object]:
    """Declare the options that say how a dataset is read."""
    return lambda parser: add(
        parser,
        argument(f"--{prefix}images DIR", f"folder of {whose}, if they do not lie beside the metadata"),
        *_naming(prefix, "image=NAME,mos=NAME,split=NAME,group=NAME"),
    )


def _naming(prefix: str, columns: str) -> tuple[Callable[[argparse.ArgumentParser], object], ...]:
    """Declare the options that say what the columns of a table hold."""
    return (
        argument(
            f"--{prefix}columns {columns}",
            "columns of a table of your own that are named otherwise",
            column_names,
        ),
        argument(
            f"--{prefix}mos COLUMN", "the column to be taken as MOS, where a table has several", default=""
        ),
        argument(
            f"--{prefix}encoding NAME", "of a table in text that is not UTF-8, such as cp1252", default=""
        ),
    )


COLUMNS = _naming("", "mos=NAME,predicted=NAME,image=NAME,group=NAME")
IMAGES, OTHER_IMAGES = _reading("", "the images"), _reading("other-", "the images of OTHER")


def read_data(options: argparse.Namespace, which: str = "data") -> ImageTable:
    """Read the dataset DATA, or OTHER, as its options say."""
    from featbank.datasets import read_dataset

    prefix = "" if which == "data" else f"{which}_"
    asked = {name: getattr(options, f"{prefix}{name}") for name in _READING}
    return read_dataset(getattr(options, which), **asked)


DATA = argument(
    "data DATA",
    "dataset folder in a known layout, or table (CSV, XLSX, Parquet, Feather, JSONL) with columns "
    "path,mos[,split,subset,group]; or the URL of one, such "
    "as s3://bucket/photos",
)
CODE = switch(
    "--allow-code",
    "run the Python files that the recipe or model names as encoders (file:...); they are programs of whoever wrote "
    "them",
)
TRUNCATED = argument(
    "--truncated refuse|keep",
    "JPEGs with damaged or missing data: refuse them, or keep what is left, which is recorded and part of each "
    "feature's key",
    default="refuse",
)
RECIPE = argument("--recipe R", "name of a built-in recipe or a TOML file", default="starter")
BANK = argument(
    "--bank DIR",
    "folder of the feature bank, or its URL in an object store, s3://bucket/bank",
    default="bank",
)
WORKERS = argument("--workers N", "processes (default: the processors this process may use)", positive_int)
CLUSTER = argument("--cluster dask://HOST:PORT", "let the workers of a Dask scheduler compute the folds")
MEMORY_LIMIT = argument(
    "--memory-limit GB",
    "gigabytes that the fit may take; a larger table of ridges is read by blocks from the bank, which gives the "
    "same numbers, and kernels without room are refused (default: four fifths of the memory that is free)",
    positive_number,
)
TEST_FRACTION = argument(
    "--test-fraction F",
    "for a dataset without a split: share of images held out for the test, by group",
    fraction,
    0.2,
)
REFERENCE = switch("--reference", "search with plain scikit-learn: the same numbers, slower")
SEED = argument("--seed S", "", seed, 0)
DEVICE = argument("--device auto|cpu|cuda", "where networks run", default="auto")
ENGINE = argument(
    "--engine torch|onnxruntime|openvino",
    "what runs networks on processors; compared with torch before it is used (default: torch)",
)
PRECISION = argument(
    "--precision fp32|bf16", "numerics of networks; weight-free encoders always use fp32", default="fp32"
)


def add(parser: argparse.ArgumentParser, *arguments: Callable[[argparse.ArgumentParser], object]) -> None:
    """Add declared arguments in order."""
    for declared in arguments:
        declared(parser)


def add_output_options(parser: argparse.ArgumentParser, *, is_action: bool = False) -> None:
    """Declare what every command has; again for its actions, as people write these options behind them."""
    for names, text in {
        ("--json",): "print one JSON document on standard output",
        ("-q", "--quiet"): "print neither progress nor notes on standard error, errors alone",
        ("-v", "--verbose"): "log what happens on standard error, with the traceback of an unexpected error",
    }.items():
        if is_action:
            parser.add_argument(
                *names, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
        else:
            parser.add_argument(*names, action="store_true", help=text)


def add_actions(
    parser: argparse.ArgumentParser, dest: str, actions: dict[str, str]
) -> dict[str, argparse.ArgumentParser]:
    """Add the parsers of a command's actions, each with its one-line help."""
    kinds = parser.add_subparsers(dest=dest, metavar=dest.upper(), required=True)
    parsers = {}
    for name, text in actions.items():
        parsers[name] = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
        add_output_options(parsers[name], is_action=True)
    return parsers


def features_command(options: argparse.Namespace, data: str) -> str:
    """Spell the command that computes what the bank lacks, for messages."""
    prefix = "" if data == options.data else "other_"
    given = {name: getattr(options, f"{prefix}{name}", None) for name in _READING}
    if given["columns"]:
        given["columns"] = ",".join(f"{name}={column}" for name, column in given["columns"].items())
    asked = "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)
    asked += " --truncated keep" if getattr(options, "truncated", "refuse") == "keep" else ""
    return f"featbank features {data}{asked} --recipe {options.recipe} --bank {options.bank}"


def cluster_of(options: argparse.Namespace) -> AbstractContextManager[ClusterUse | None]:
    """Return the context in which a cluster computes folds, or one that changes nothing.

    Raises
    ------
    ClusterError
        If the address is misspelt, or ``--workers`` is given as well; on entering, if the cluster cannot be used.
    """
    if options.cluster is None:
        return nullcontext()
    from featbank.cluster import check_cluster, on_cluster

    check_cluster(options.cluster)
    if options.workers is not None:
        raise ClusterError(
            f"--workers {options.workers} means this machine, but the workers of {options.cluster} compute the folds. "
            "Leave it out, and start as many workers there."
        )
    return on_cluster(options.cluster, packages=("regressors",))


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
    """Refuse ``cuda`` where torch or a CUDA device is missing (EncoderError): running elsewhere would surprise."""
    if device != "cuda":
        return
    found = "torch is not installed"
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return
        found = "torch sees no CUDA device"
    raise EncoderError(f"--device cuda: {found}. Use --device auto or cpu, or install torch with CUDA.")
