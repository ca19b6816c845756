"""Makes the student that the package ships: ``python -m experiments.student STEP``, in this order.

``set``    weakly rated pictures of the photographs in a folder (34,000 of them: half an hour on two cores)
``train``  the network's trunk, resumable (half an hour on two cores, after the pictures' statistics)
``mix``    what reads statistics beside the trunk, resumable (a quarter of an hour)
``judge``  its figures on held-out photographs, as CSV
``ship``   its files, into the package
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featbank.errors import FeatbankError
from featbank.workers import own_workers

if TYPE_CHECKING:
    from featbank.distill.network import StudentNetwork

SHIPPED_NAME: Final = "mobile"
SHIPPED_VIEW: Final = "tiles_5x5/center_224"
_PHOTOGRAPHS: Final = {".jpg", ".jpeg", ".png"}

_log = logging.getLogger("experiments.student")


def main(argv: list[str] | None = None) -> int:
    """Run one step; returns 0 when done, 1 when it could not be done."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.student",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = {"set": _set, "train": _train, "mix": _mix, "judge": _judge, "ship": _ship}
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
    from experiments.student.weak_set import WeakSetPlan, make_weak_set, read_weak_set

    folder, photographs = Path(options.work) / "set", _photographs(options)
    make_weak_set(photographs, folder, WeakSetPlan(versions=options.versions), options.workers)
    _log.info(
        "%d pictures of %d photographs in %s", len(read_weak_set(folder).ratings), len(photographs), folder
    )


def _photographs(options: argparse.Namespace) -> list[Path]:
    return sorted(
        path
        for folder in options.photos
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in _PHOTOGRAPHS
    )


def _train(options: argparse.Namespace) -> None:
    import torch

    from experiments.student.training import ShippedPlan, picture_statistics, train_shipped
    from experiments.student.weak_set import read_weak_set

    work = Path(options.work)
    weak_set = read_weak_set(work / "set")
    statistics = picture_statistics(weak_set, work / "set", options.workers)

    def log(step: int, losses: dict[str, float]) -> None:
        if (step + 1) % 100 == 0:
            _log.info("step %d: %s", step + 1, ", ".join(f"{k} {v:.3f}" for k, v in losses.items()))

    plan = ShippedPlan(n_steps=options.steps)
    network = train_shipped(weak_set, statistics, plan, work, device=options.device, log=log)
    # Without a mixer this is the student; a mixer learned above an older trunk must not outlive it.
    for file in ("trunk.pt", "student.pt"):
        torch.save(network.cpu().state_dict(), work / file)


def _mix(options: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from experiments.student.training import MixPlan, kinds_of, learn_statistics, mix, pool_pictures, widen
    from experiments.student.weak_set import read_weak_set

    work, plan = Path(options.work), MixPlan()
    weak_set = read_weak_set(work / "set")
    rows = np.flatnonzero(weak_set.is_training(plan.held_out))
    network = widen(_load(work, "trunk.pt"), plan, len(kinds_of(weak_set, rows)))
    pooled = pool_pictures(network, weak_set, rows, work)
    learn_statistics(network, pooled)
    mix(network, pooled, weak_set, rows, plan, work, device=options.device)
    torch.save(network.cpu().state_dict(), work / "student.pt")


def _judge(options: argparse.Namespace) -> None:
    import numpy as np

    from experiments.student.judge import (
        CURVE,
        DIFFERENCES,
        SCORES,
        embed,
        judge,
        small_sample_curve,
        untrained,
    )
    from experiments.student.training import picture_statistics
    from experiments.student.weak_set import read_weak_set

    work = Path(options.work)
    weak_set = read_weak_set(work / "set")
    network = _load(work)
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
    scores.to_csv(work / SCORES, index=False)
    differences.to_csv(work / DIFFERENCES, index=False)
    _log.info("%s", scores.round(3).T.to_string())
    _log.info("%s", differences.round(3).to_string())
    curve = small_sample_curve(chosen, blocks)
    curve.to_csv(work / CURVE, index=False)
    _log.info("%s", curve.round(3).to_string())


def _ship(options: argparse.Namespace) -> None:
    import featbank
    from experiments.student.judge import write_shipped_card
    from experiments.student.training import ShippedPlan
    from featbank.distill.export import write_student
    from featbank.encoders.student import FAMILY, StudentDescription

    work = Path(options.work)
    network = _load(work)
    card = write_shipped_card(f"{FAMILY}:{SHIPPED_NAME}", SHIPPED_VIEW, network, ShippedPlan(), work)
    facts = StudentDescription(
        name=SHIPPED_NAME,
        title="Small MobileNet trained on weakly rated distortions of photographs",
        reference="this project; idea of weak supervision: Lin, Hosu and Saupe 2020 (DeepFL-IQA)",
        licence="Apache-2.0",
        architecture=f"{network.architecture}, stem {network.stem_kind}"
        + (", statistics" if network.statistics is not None else ""),
        view=SHIPPED_VIEW,
        n_features=0, n_params=0, size_multiple=1, min_size=1, layers=(), sha256="",
    )  # fmt: skip
    folder = Path(featbank.__file__).parent / "encoders" / "students" / SHIPPED_NAME
    facts = write_student(folder, network, facts, card)
    _log.info(
        "%s: %d parameters, %.3f GMACs at 224 px", folder, facts.n_params, facts.count_macs(224, 224) / 1e9
    )


def _load(work: Path, file: str = "student.pt") -> StudentNetwork:
    import torch

    from experiments.student.training import ShippedPlan
    from featbank.distill.network import StudentNetwork

    plan, state = ShippedPlan(), torch.load(work / file, map_location="cpu", weights_only=True)
    n_mixed, n_read = (
        len(state[name]) if name in state else 0 for name in ("mixer.first.bias", "mixer.readings.bias")
    )
    network = StudentNetwork(plan.architecture, plan.stem, plan.n_embedding, n_mixed > 0, n_mixed, n_read)
    network.load_state_dict(state)
    return network.eval()


if __name__ == "__main__":
    sys.exit(main())
