"""A weakly rated set: patches of photographs, distorted, with full-reference measures for ratings.

Nobody looks at these pictures: published measures compare each with its flawless patch (the idea of
DeepFL-IQA and KADIS: Lin, Hosu and Saupe 2020). HaarPSI is computed as well and never trained on: it judges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image

from experiments.student.distortions import CHAINS, DISTORTIONS, HELD_OUT_CHAINS, N_LEVELS, distort
from featbank.atomic import replacing, write_file
from featbank.digest import digest_json, seed_from
from featbank.distill.training import keep_blocks
from featbank.errors import DatasetError, ImageError
from featbank.images import read_photo

TRAINED_MEASURES: Final = ("mdsi", "multi_scale_gmsd", "ms_ssim", "dss")
"""Ratings to learn from: Nafchi 2016, Zhang 2017 (multi-scale GMSD), Wang 2003, Balanov 2015.

SR-SIM (Zhang 2012) was tried and left out: the library's gives equal pictures 0.51 to 1, by what they show."""

JUDGE: Final = "haarpsi"
"""Reisenhofer et al. 2018; never trained on."""

_FALLING: Final = ("mdsi", "multi_scale_gmsd")
"""Measures that are 0 for equal pictures and grow with the difference; their sign is turned."""

_SOURCE_SHRINK: Final = (1.2, 1.6)
"""Photographs are shrunk by a factor of this range first: it hides the compression they come with."""

_LEAST_TEXTURE: Final = 0.1
"""Mean step between rows, in grey levels, below which a patch is one colour and teaches nothing.

Far plainer patches than people would pick belong to the set: sky and walls are most of a 4K photo's tiles."""


@dataclass(frozen=True)
class WeakSetPlan:
    """What the set holds: patches of each photograph, ``patches_per_mp`` a megapixel, and versions of each patch."""

    size: int = 256
    patches_per_mp: float = 3.0
    max_patches: int = 24
    versions: int = 40
    seed: int = 0


def _patches(path: Path, plan: WeakSetPlan) -> list[NDArray[np.uint8]]:
    """Cut flawless patches from a photograph, at random places of randomly shrunk copies."""
    try:
        pixels = read_photo(path).pixels
    except ImageError:
        return []
    rng = np.random.default_rng(seed_from("patches", str(plan.seed), path.name))
    height, width = pixels.shape[:2]
    n = int(np.clip(round(plan.patches_per_mp * height * width / 1e6), 1, plan.max_patches))
    image = Image.fromarray(pixels)
    out = []
    for _ in range(n):
        shrink = min(float(rng.uniform(*_SOURCE_SHRINK)), min(height, width) / plan.size)
        if shrink < 1.0:
            return []
        scaled = (max(plan.size, round(width / shrink)), max(plan.size, round(height / shrink)))
        x = int(rng.integers(scaled[0] - plan.size + 1))
        y = int(rng.integers(scaled[1] - plan.size + 1))
        box = (
            x * width / scaled[0], y * height / scaled[1],
            (x + plan.size) * width / scaled[0], (y + plan.size) * height / scaled[1],
        )  # fmt: skip
        patch = np.asarray(image.resize((plan.size, plan.size), Image.Resampling.LANCZOS, box=box))
        if float(np.abs(np.diff(patch.mean(axis=2), axis=0)).mean()) > _LEAST_TEXTURE:
            out.append(patch)
    return out


def _rate(flawless: NDArray[np.uint8], versions: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Compare versions (n, size, size, 3) with their patch by every measure, higher better."""
    import piq
    import torch

    torch.set_num_threads(1)
    x = torch.from_numpy(versions).permute(0, 3, 1, 2).float() / 255.0
    y = torch.from_numpy(flawless[np.newaxis].copy()).permute(0, 3, 1, 2).float().expand_as(x) / 255.0
    measures: dict[str, Callable[..., Any]] = {
        "mdsi": piq.mdsi,
        "multi_scale_gmsd": piq.multi_scale_gmsd,
        "ms_ssim": lambda a, b, reduction: piq.multi_scale_ssim(a, b, kernel_size=7, reduction=reduction),
        "dss": piq.dss,
        JUDGE: piq.haarpsi,
    }
    with torch.inference_mode():
        return {
            name: (-1.0 if name in _FALLING else 1.0)
            * measure(x, y, reduction="none").double().numpy().ravel()
            for name, measure in measures.items()
        }


def _make_shard(path: Path, plan: WeakSetPlan, folder: Path) -> Path | None:
    """Write one photograph's versions and ratings, unless they are there."""
    target = folder / f"{path.stem}-{digest_json({**asdict(plan), 'photo': path.name})[:10]}.npz"
    if target.is_file():
        return target
    patches = _patches(path, plan)
    if not patches:
        return None
    rng = np.random.default_rng(seed_from("versions", str(plan.seed), path.name))
    kinds = [*DISTORTIONS, *CHAINS]
    pictures: list[NDArray[np.uint8]] = []
    tables: list[pd.DataFrame] = []
    deck: list[tuple[str, int]] = []
    for patch in patches:
        while len(deck) < plan.versions:
            fresh = [(kind, level) for kind in kinds for level in range(1, N_LEVELS + 1)]
            deck += [fresh[k] for k in rng.permutation(len(fresh))]
        dealt, deck = deck[: plan.versions], deck[plan.versions :]
        versions = np.stack([patch, *(distort(patch, kind, level, rng) for kind, level in dealt)])
        pictures.append(versions)
        kinds_dealt, levels = zip(("none", 0), *dealt, strict=True)
        tables.append(
            pd.DataFrame(
                {"kind": kinds_dealt, "level": levels, "patch": len(tables), **_rate(patch, versions)}
            )
        )
    table = pd.concat(tables).to_records(index=False, column_dtypes={"kind": "U24"})
    with replacing(target, "weak set") as scratch:
        np.savez(scratch, pictures=np.concatenate(pictures), table=table)
    return target


def make_weak_set(photographs: Sequence[Path], folder: Path, plan: WeakSetPlan, workers: int = 2) -> None:
    """Make what is missing of the set: ``pictures.npy`` (n, size, size, 3) uint8 and ``ratings.csv``, shards before.

    Photographs that cannot be read or are too small are left out.

    Raises DatasetError if no photograph gave a patch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = Parallel(n_jobs=workers)(delayed(_make_shard)(path, plan, folder) for path in photographs)
    shards = [(path, shard) for path, shard in zip(photographs, found, strict=True) if shard is not None]
    if not shards:
        raise DatasetError(
            f"weak set: none of {len(photographs)} photographs gave a patch of {plan.size} pixels. Give photographs "
            f"with sides of at least {plan.size} pixels and some texture."
        )
    tables = []
    for path, shard in shards:
        with np.load(shard, allow_pickle=False) as data:
            tables.append(pd.DataFrame(data["table"]).assign(photo=path.name))
    ratings = pd.concat(tables, ignore_index=True)

    def blocks() -> Iterator[NDArray[np.uint8]]:
        for _, shard in shards:
            with np.load(shard, allow_pickle=False) as data:
                yield data["pictures"]

    request, shape = {"shards": [shard.name for _, shard in shards]}, (len(ratings), plan.size, plan.size, 3)
    keep_blocks(folder, "pictures", request, shape, np.uint8, blocks)
    write_file(folder / "ratings.csv", ratings.to_csv(index=False), "weak set")
    text = json.dumps({**asdict(plan), "photographs": len(shards)}, indent=1)
    write_file(folder / "plan.json", text, "weak set")


@dataclass(frozen=True)
class WeakSet:
    """A made set: ``pictures`` (n, size, size, 3), and ``ratings`` (``photo, patch, kind, level`` and the measures)."""

    pictures: NDArray[np.uint8]
    ratings: pd.DataFrame

    def held_out(self, share: float = 0.15) -> NDArray[np.bool_]:
        """Tell which rows belong to photographs that are held out, by the photograph's name alone."""
        photos = self.ratings["photo"]
        return photos.map({name: is_held_out(name, share) for name in photos.unique()}).to_numpy(dtype=bool)

    def is_training(self, share: float = 0.15) -> NDArray[np.bool_]:
        """Tell which rows may be learned from: of no photograph held out, of no chain that is never to be met."""
        return ~self.held_out(share) & ~self.ratings["kind"].isin(HELD_OUT_CHAINS).to_numpy()


def is_held_out(name: str, share: float = 0.15) -> bool:
    """Tell whether the photograph of this file name is held out from training."""
    return seed_from("held out", name) / 2.0**64 < share


def read_weak_set(folder: Path) -> WeakSet:
    """Open a set made by `make_weak_set`; a DatasetError if the folder holds no finished one."""
    if not (folder / "plan.json").is_file():
        raise DatasetError(f"weak set: {folder} holds no finished set. Make it first.")
    return WeakSet(
        np.load(folder / "pictures.npy", mmap_mode="r"),
        pd.read_csv(folder / "ratings.csv", keep_default_na=False),
    )
