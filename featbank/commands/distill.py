"""Distil a fitted run into a small network that is used like every other encoder.

The student matches the teacher's features and scores by MSE (report, section 2.6), first on crops of the
photographs, then, with its trunk at rest, on whole ones. MOS is not needed; more photographs help more than
more steps. An interrupted call is taken up where it stopped. The result is the encoder featbank:NAME, with
its weights, description, receipt and model card in the weights folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from featbank.commands import Output
from featbank.commands.options import (
    add_bank,
    add_code,
    add_data,
    add_workers,
    check_device,
    non_negative_int,
    positive_int,
    seed,
)

EXAMPLE = "example: featbank distill demo --teacher runs/starter --further ~/photos --out my_student"
_STEPS = 1500
"""On crops, where no trunk has learned yet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_data(parser)
    parser.add_argument("--teacher", metavar="RUN", required=True, help="fitted run, or its model.skops")
    parser.add_argument(
        "--further",
        metavar="PATH",
        nargs="+",
        default=[],
        help="more photos or folders of photos to learn from, without MOS; those that DATA holds are passed over",
    )
    parser.add_argument("--out", metavar="NAME", required=True, help="name of the student: a plain word")
    parser.add_argument(
        "--student",
        metavar="ARCH",
        default="mobilenetv3_small_075",
        help="MobileNet V3 or V4 of timm (default: mobilenetv3_small_075)",
    )
    parser.add_argument(
        "--stem",
        choices=("unshuffle", "strided"),
        default="unshuffle",
        help="how pixels enter: unshuffle keeps the pixel grid (default: unshuffle)",
    )
    parser.add_argument(
        "--view",
        metavar="VIEW",
        default="tiles_5x5/center_128",
        help="view with crops of one size (default: tiles_5x5/center_128)",
    )
    parser.add_argument(
        "--start",
        metavar="NAME",
        default="auto",
        help="shipped student to start from, 'none' for random weights (default: auto, the shipped one that fits)",
    )
    parser.add_argument(
        "--no-statistics",
        dest="statistics",
        action="store_false",
        help="let the student see what its trunk has learned alone, no natural-scene statistics",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=non_negative_int,
        help="of the first part, on crops; 0 keeps the trunk it starts from (default: 0 with a shipped student to "
        "start from, else 1500)",
    )
    parser.add_argument(
        "--settle-steps",
        metavar="N",
        type=positive_int,
        default=1500,
        help="of the second part, on whole photos (default: 1500)",
    )
    parser.add_argument(
        "--crops", metavar="N", type=positive_int, default=16, help="crops kept of each photo (default: 16)"
    )
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="default: 0")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default: auto)"
    )
    add_bank(parser)
    add_code(parser)
    add_workers(parser)


def run(options: argparse.Namespace) -> Output:
    """Distil."""
    from featbank.encoders import make_encoder

    check_device(options.device)
    make_encoder(
        "timm:mobilenetv3_small_100.lamb_in1k"
    )  # says how to install torch and timm where they are missing
    import torch

    from featbank.bank import Bank
    from featbank.datasets import read_dataset, read_photos
    from featbank.distill.distill import distill
    from featbank.distill.pupil import DistillPlan
    from featbank.encoders.students.description import describe_student, shipped_students

    start = "" if options.start == "none" else options.start
    if start == "auto":
        architecture = f"{options.student}, stem {options.stem}"
        fitting = [n for n in shipped_students() if describe_student(n).architecture.startswith(architecture)]
        start = fitting[0] if fitting else ""
    plan = DistillPlan(
        architecture=options.student,
        stem=options.stem,
        statistics=options.statistics,
        view=options.view,
        n_steps=(0 if start else _STEPS) if options.steps is None else options.steps,
        n_crops=options.crops,
        settle_steps=options.settle_steps,
        start=start,
        seed=options.seed,
    )
    is_cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    result = distill(
        read_dataset(options.data, images=options.images),
        Path(options.teacher),
        options.out,
        Bank(options.bank),
        plan,
        device="cuda" if is_cuda else "cpu",
        further=read_photos(options.further) if options.further else None,
        workers=options.workers,
        log=lambda line: print(line, file=sys.stderr),
    )
    card = (Path(result["folder"]) / "README.md").read_text(encoding="utf-8")
    return Output(result, f"{card}\nfolder: {result['folder']}")
