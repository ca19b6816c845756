"""Makes the students that the package ships: ``python -m experiments.student STEP``, in this order.

``set``    weakly rated pictures of the photographs in a folder (34,000 of them: half an hour on two cores)
``train``  the network's trunk, resumable (half an hour on two cores, after the pictures' statistics)
``mix``    what reads statistics beside the trunk, resumable (a quarter of an hour)
``judge``  its figures on held-out photographs, as CSV
``ship``   its files, into the package
``whole``  the other student, out of the kept weights of checkpoint:efficientnet-lite0, into the package
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from experiments.student.judge import (
    CURVE,
    DIFFERENCES,
    SCORES,
    embed,
    judge,
    small_sample_curve,
    untrained,
    write_shipped_card,
)
from experiments.student.training import (
    MixPlan,
    ShippedPlan,
    kinds_of,
    learn_statistics,
    mix,
    picture_statistics,
    pool_pictures,
    train_shipped,
    widen,
)
from experiments.student.weak_set import WeakSetPlan, make_weak_set, read_weak_set
from experiments.student.whole import write_whole
from featbank.distill.export import write_student
from featbank.distill.network import StudentNetwork
from featbank.encoders import student
from featbank.errors import FeatbankError
from featbank.workers import own_workers

SHIPPED_NAME: Final = "mobile"
SHIPPED_VIEW: Final = "tiles_4x4/center_224"
WHOLE_NAME: Final = "whole"
WHOLE_VIEW: Final = "long_512"
_PHOTOGRAPHS: Final = {".jpg", ".jpeg", ".png"}

_log = logging.getLogger("experiments.student")


def main(argv: list[str] | None = None) -> int:
    """Run one step; returns 0 when done, 1 when it could not be done."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.student",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = {"set": _set, "train": _train, "mix": _mix, "judge": _judge, "ship": _ship, "whole": _whole}
    parser.add_argument("step", choices=tuple(steps))
    parser.add_argument(
        "--photos", metavar="DIR", nargs="+", default=[], help="folders of photographs, for `set`"
    )
    parser.add_argument("--work", metavar="DIR", default="student", help="folder for everything: student")
    parser.add_argument("--versions", type=int, default=30, help="distorted versions of a patch, for `set`")
    parser.add_argument("--steps", type=int, default=4500, help="training steps (default: 4500)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        with own_workers():
            steps[options.step](options)
    except FeatbankError as error:
        _log.error("%s", error)
        return 1
    return 0


def _set(options: argparse.Namespace) -> None:
    folder = Path(options.work) / "set"
    files = [path for photos in options.photos for path in Path(photos).rglob("*")]
    photographs = sorted(path for path in files if path.suffix.lower() in _PHOTOGRAPHS)
    make_weak_set(photographs, folder, WeakSetPlan(versions=options.versions), options.workers)
    n_pictures = len(read_weak_set(folder).ratings)
    _log.info("%d pictures of %d photographs in %s", n_pictures, len(photographs), folder)


def _train(options: argparse.Namespace) -> None:
    work = Path(options.work)
    weak_set = read_weak_set(work / "set")
    statistics = picture_statistics(weak_set, work / "set", options.workers)

    def log(step: int, losses: dict[str, float]) -> None:
        if (step + 1) % 100 == 0:
            _log.info("step %d: %s", step + 1, ", ".join(f"{k} {v:.3f}" for k, v in losses.items()))

    plan = ShippedPlan(n_steps=options.steps)
    network = train_shipped(weak_set, statistics, plan, work, device=options.device, log=log)
    _save(network, work / "trunk.pt")
    (work / "student.pt").unlink(missing_ok=True)  # its mixer learned above an older trunk


def _mix(options: argparse.Namespace) -> None:
    work, plan = Path(options.work), MixPlan()
    weak_set = read_weak_set(work / "set")
    rows = np.flatnonzero(weak_set.is_training(plan.held_out))
    network = widen(_load(work / "trunk.pt"), plan, len(kinds_of(weak_set, rows)))
    pooled = pool_pictures(network, weak_set, rows, work)
    learn_statistics(network, pooled)
    mix(network, pooled, weak_set, rows, plan, work, device=options.device)
    _save(network, work / "student.pt")


def _judge(options: argparse.Namespace) -> None:
    work = Path(options.work)
    weak_set, network = read_weak_set(work / "set"), _load(work / "student.pt")
    held_out = weak_set.held_out()
    chosen = replace(weak_set, pictures=weak_set.pictures[held_out], ratings=weak_set.ratings[held_out])
    others = np.flatnonzero(~held_out)
    fresh = untrained(network, weak_set.pictures[others[:: max(1, len(others) // 2048)]])
    blocks = {
        "student": embed(network, chosen.pictures, device=options.device),
        "untrained": embed(fresh, chosen.pictures, device=options.device),
        "nss": picture_statistics(weak_set, work / "set", options.workers)[held_out],
    }
    scores, differences = judge(chosen, blocks)
    tables = {SCORES: scores, DIFFERENCES: differences, CURVE: small_sample_curve(chosen, blocks)}
    for file, table in tables.items():
        table.to_csv(work / file, index=False)
        _log.info("%s", table.round(3).to_string())


def _ship(options: argparse.Namespace) -> None:
    work = Path(options.work)
    network = _load(work / "student.pt")
    name = f"{student.FAMILY}:{SHIPPED_NAME}"
    card = write_shipped_card(name, SHIPPED_VIEW, network, ShippedPlan(), work)
    facts = {
        "name": SHIPPED_NAME,
        "title": "Small MobileNet trained on weakly rated distortions of photographs",
        "reference": "this project; idea of weak supervision: Lin, Hosu and Saupe 2020 (DeepFL-IQA)",
        "licence": "Apache-2.0",
        "view": SHIPPED_VIEW,
    }
    made = write_student(work / SHIPPED_NAME, network, facts, card)
    folder = _into_package(work / SHIPPED_NAME)
    gmacs = made.count_macs(224, 224) / 1e9
    _log.info("%s: %d parameters, %.3f GMACs at 224 px", folder, made.n_params, gmacs)


def _whole(options: argparse.Namespace) -> None:
    card = (Path(__file__).with_name("whole.md")).read_text(encoding="utf-8")
    made = write_whole(Path(options.work) / WHOLE_NAME, WHOLE_VIEW, card)
    _into_package(Path(options.work) / WHOLE_NAME)
    _log.info("%s:%s: %d parameters, %d features", student.FAMILY, made.name, made.n_params, made.n_features)


def _into_package(folder: Path) -> Path:
    """Copy a student's folder to where the package keeps those that ship."""
    shipped = Path(student.__file__).parent / "students" / folder.name
    shutil.copytree(folder, shipped, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    return shipped


def _save(network: StudentNetwork, path: Path) -> None:
    torch.save({"build": network.build, "state": network.cpu().state_dict()}, path)


def _load(path: Path) -> StudentNetwork:
    kept = torch.load(path, map_location="cpu", weights_only=True)
    network = StudentNetwork(*kept["build"])
    network.load_state_dict(kept["state"])
    return network.eval()


if __name__ == "__main__":
    sys.exit(main())
