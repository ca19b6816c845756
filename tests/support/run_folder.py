"""Makes run folders like those ``fit`` writes, from synthetic scores, for tests and for looking at the report."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kendalltau, rankdata

Floats = NDArray[np.float64]

RECIPE = """\
recipe_version = 1
title = "{title}"

[[band]]
name = "quality"
encoder = "classic:nss"
view = "width_960/tiles_224"

[regression]
members = "all+leave-one-out"
estimator = "ridge"
alpha = {{ logspace = [-6, 6, 13] }}
cv = {{ kind = "grouped", n_splits = 5, shuffle = true, random_state = 0 }}
combine = "nnls"
select_by = "srcc"
budget_gmacs = 50.0
"""

# name, encoder, view, role, columns, GMACs, million parameters, signal in units of the noise
BANDS = (
    ("quality", "classic:nss", "width_960/tiles_224", "quality", 180, 0.092, 0.0, 1.1),
    ("content", "classic:layout", "square_320", "content", 512, 0.011, 0.0, 0.45),
    ("scene", "classic:gist", "square_320", "scene", 512, 0.138, 0.0, 0.4),
    ("keypoint", "classic:corners", "short_512/center_480", "keypoint", 96, 0.034, 0.0, 0.6),
    ("mobile", "featbank:mobilenet-s", "short_512/center_480", "mobile", 1024, 0.274, 2.54, 0.95),
)
LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class RunOptions:
    """What kind of run to pretend.

    Attributes
    ----------
    counts : dict
        Images by split; a split of 0 does not exist.
    exclusive : int
        Exclusive images in each of validation and test.
    n_bands : int
        How many of ``BANDS``; 1 gives a single member.
    imported : bool
        Features brought from elsewhere: no GMACs, no encoders' licences, no durations of extraction.
    noise : float
        Greater is a worse model.
    """

    counts: dict[str, int] = field(default_factory=lambda: {"training": 90, "validation": 45, "test": 60})
    exclusive: int = 15
    n_bands: int = 5
    title: str = "Four weight-free roles and a small network, five ridge members"
    mos_range: tuple[float, float] | None = (0.0, 1.0)
    simulation: bool = False
    imported: bool = False
    metadata: bool = True
    budget: float | None = 50.0
    failures: int = 3
    noise: float = 1.0
    seed: int = 0
    n_bootstrap: int = 40
    names: tuple[str, ...] = ()
    svr: bool = False


FULL_SIZE = RunOptions(
    counts={"training": 4269, "validation": 904, "test": 900},
    exclusive=302,
    simulation=False,
    n_bootstrap=200,
)


def write_run_folder(path: Path, options: RunOptions = RunOptions()) -> Path:
    """Write a whole run folder, but for the model and what the report itself makes."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    bands = BANDS[: options.n_bands]
    images, splits, subsets = _images(options)
    n = len(images)
    mos = 0.55 + 0.33 * rng.beta(4.5, 3.2, n)
    mos -= np.where(subsets == "exclusive", 0.012, 0.0)
    low, high = options.mos_range or (0.0, 1.0)
    mos = low + (high - low) * mos
    spread = mos.std() or 1.0
    z = (mos - mos.mean()) / spread
    single = {band[0]: mos.mean() + spread * _shrunk(z, band[-1] / options.noise, rng) for band in bands}
    members, weights = _members([band[0] for band in bands], rng)
    signal = sum(band[-1] ** 2 for band in bands) ** 0.5
    shared = rng.normal(size=n)
    scored = {name: mos.mean() + spread * _shrunk(z, signal / options.noise, rng, shared) for name in members}
    predicted = np.sum([weights[name] * scored[name] for name in members], axis=0)
    # Raters prize the very best photos more than any statistic sees.
    predicted -= spread * 0.12 * np.maximum(z - 1, 0) ** 2
    _write_predictions(path, images, splits, subsets, mos, predicted, scored)
    sets = _sets(splits, subsets)
    training_mean = (
        float(mos[splits == "training"].mean()) if (splits == "training").any() else float(mos.mean())
    )
    constant = np.full(n, training_mean)
    metrics: dict[str, Any] = {
        key: _metrics(mos[rows], predicted[rows], rng, options.n_bootstrap) for key, rows in sets.items()
    }
    baselines = {"constant": {key: _metrics(mos[rows], constant[rows]) for key, rows in sets.items()}}
    if options.metadata:
        floor = mos.mean() + spread * _shrunk(z, 0.31, rng)
        baselines["metadata_ridge"] = {
            key: _metrics(mos[rows], floor[rows], rng, options.n_bootstrap) for key, rows in sets.items()
        }
    metrics |= {
        "gmacs": None if options.imported else round(sum(band[5] for band in bands), 6),
        "params_m": None if options.imported else round(sum(band[6] for band in bands), 6),
        "budget_gmacs": options.budget,
        "baselines": baselines,
        "single_bands": {
            name: {key: _metrics(mos[rows], values[rows]) for key, rows in sets.items()}
            for name, values in single.items()
        },
        "simulation": options.simulation,
    }
    write_json(path / "metrics.json", metrics)
    _write_cv_results(path, members, rng, options.svr)
    with (path / "weights.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["member", "weight", "bands"])
        for name, bands_of in members.items():
            writer.writerow([name, weights[name], "+".join(bands_of)])
        writer.writerow(["intercept", 0.0123, ""])
    recipe = RECIPE.format(title=options.title.replace("\\", "\\\\").replace('"', '\\"'))
    (path / "recipe.toml").write_text(recipe, encoding="utf-8")
    write_json(path / "receipt.json", _receipt(options, bands, members, splits, subsets, recipe))
    return path


def write_photos(folder: Path, images: list[str], seed: int = 0) -> dict[str, Path]:
    """Write a small JPEG for each image: smooth colours under texture, so that thumbnails look like something."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    photos = {}
    for i, image in enumerate(images):
        height, width = (400, 600) if i % 4 else (600, 400)
        y, x = np.mgrid[0:height, 0:width] / 600
        hue, tilt = rng.uniform(0, 6.3), rng.normal(size=2)
        wave = np.sin(4 * (tilt[0] * x + tilt[1] * y) + hue)
        channels = [128 + 70 * wave * np.cos(hue + k) + 60 * (y - 0.4) for k in range(3)]
        pixels = np.stack(channels, axis=-1) + rng.normal(scale=8, size=(height, width, 1))
        photos[image] = folder / f"{i}.jpg"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(photos[image], quality=88)
    return photos


def write_json(path: Path, value: object) -> None:
    """Write JSON as the run does: indented, UTF-8, undefined numbers as null."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    """Replace top-level entries of a JSON file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, value | changes)


def _images(options: RunOptions) -> tuple[list[str], NDArray[np.str_], NDArray[np.str_]]:
    splits, subsets = [], []
    for split, n in options.counts.items():
        splits += [split] * n
        n_exclusive = 0 if split == "training" else min(options.exclusive, n)
        subsets += ["exclusive"] * n_exclusive + [""] * (n - n_exclusive)
    images = [f"{i + 1}.jpg" for i in range(len(splits))]
    # Hostile or odd names go to the last rows, which are test rows.
    for i, name in enumerate(options.names):
        images[-1 - i] = name
    return images, np.array(splits), np.array(subsets)


def _shrunk(z: Floats, signal: float, rng: np.random.Generator, shared: Floats | None = None) -> Floats:
    """Best linear guess of ``z`` from a noisy look at it: what a ridge gives, pulled to the mean."""
    noise = rng.normal(size=len(z))
    if shared is not None:
        noise = 0.93 * shared + 0.37 * noise
    reliability = signal**2 / (1 + signal**2)
    return reliability * (z + noise / signal)


def _members(bands: list[str], rng: np.random.Generator) -> tuple[dict[str, list[str]], dict[str, float]]:
    members = {"all": bands}
    if len(bands) > 1:
        members |= {f"without:{band}": [other for other in bands if other != band] for band in bands}
    raw = rng.uniform(0.02, 1.0, len(members))
    raw[0] += 0.8
    if len(members) > 3:
        raw[2] = 0.0
    return members, dict(zip(members, (raw / raw.sum()).tolist(), strict=True))


def _sets(splits: NDArray[np.str_], subsets: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    sets = {}
    for split, key in (("training", "training_cv"), ("validation", "validation"), ("test", "test")):
        if (splits == split).any():
            sets[key] = splits == split
            if (exclusive := (splits == split) & (subsets == "exclusive")).any():
                sets[f"{key}/exclusive"] = exclusive
    return sets


def _metrics(
    y: Floats, y_pred: Floats, rng: np.random.Generator | None = None, n_bootstrap: int = 0
) -> dict[str, Any]:
    values = _point_metrics(y, y_pred)
    entry: dict[str, Any] = {"n": len(y)} | {k: v if np.isfinite(v) else None for k, v in values.items()}
    if rng is not None and n_bootstrap:
        draws = []
        for _ in range(n_bootstrap):
            rows = rng.integers(0, len(y), len(y))
            draws.append(list(_point_metrics(y[rows], y_pred[rows]).values()))
        ends = np.quantile(np.array(draws), [0.025, 0.975], axis=0).T
        entry["ci95"] = {name: bounds.tolist() for name, bounds in zip(values, ends, strict=True)}
    return entry


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _point_metrics(y: Floats, y_pred: Floats) -> dict[str, float]:
    error = y_pred - y
    values = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
    if np.ptp(y_pred) == 0 or np.ptp(y) == 0:
        values["rmse_logistic"] = float(np.std(y))
        return values | dict.fromkeys(("plcc", "srcc", "krcc", "plcc_logistic"), float("nan"))
    plcc = _correlation(y, y_pred)
    is_curved = len(np.unique(y_pred)) > 4
    curve = np.polynomial.Polynomial.fit(y_pred, y, 3 if is_curved else 1)
    mapped = max(plcc, _correlation(y, curve(y_pred)))  # a cubic stands in for the map
    return values | {
        "plcc": plcc,
        "srcc": _correlation(rankdata(y), rankdata(y_pred)),
        "krcc": float(kendalltau(y, y_pred).statistic),
        "plcc_logistic": mapped,
        "rmse_logistic": float(np.std(y) * np.sqrt(max(0.0, 1 - mapped**2))),
    }


def _write_predictions(
    path: Path,
    images: list[str],
    splits: NDArray[np.str_],
    subsets: NDArray[np.str_],
    mos: Floats,
    predicted: Floats,
    members: dict[str, Floats],
) -> None:
    with (path / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["image", "split", "subset", "mos", "predicted", *(f"member:{name}" for name in members)]
        )
        for i, image in enumerate(images):
            row = [round(float(values[i]), 6) for values in (mos, predicted, *members.values())]
            writer.writerow([image, splits[i], subsets[i], *row])


def _write_cv_results(path: Path, members: dict[str, list[str]], rng: np.random.Generator, svr: bool) -> None:
    values = np.logspace(-3, 3, 7) if svr else np.logspace(-6, 6, 13)
    gammas = (0.001, 0.01, 0.1) if svr else (None,)
    names = ["C", "gamma"] if svr else ["alpha"]
    with (path / "cv_results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        folds = [f"split{k}_test_score" for k in range(5)]
        writer.writerow(["member", "rank", *names, "mean_test_score", "std_test_score", *folds])
        for i, member in enumerate(members):
            rows = []
            for value in values:
                for gamma in gammas:
                    peak = 0.0 if svr else 2.0
                    level = 0.76 - 0.012 * i - 0.009 * (np.log10(value) - peak) ** 2
                    level -= 0.0 if gamma is None else 0.03 * abs(np.log10(gamma) + 2)
                    scores = level + rng.normal(scale=0.02, size=5)
                    parameters = [float(value)] if gamma is None else [float(value), gamma]
                    rows.append((parameters, scores))
            order = np.argsort([-scores.mean() for _, scores in rows], kind="stable")
            ranks = np.empty(len(rows), dtype=int)
            ranks[order] = np.arange(1, len(rows) + 1)
            for rank, (parameters, scores) in zip(ranks, rows, strict=True):
                writer.writerow([member, rank, *parameters, scores.mean(), scores.std(), *scores])


def _receipt(
    options: RunOptions,
    bands: tuple[Any, ...],
    members: dict[str, list[str]],
    splits: NDArray[np.str_],
    subsets: NDArray[np.str_],
    recipe: str,
) -> dict[str, Any]:
    def pass_name(band: Any) -> str:
        return f"{band[1]}@{band[2]}"

    counts = {s: int((splits == s).sum()) for s in dict.fromkeys(splits.tolist())}
    exclusive = {s: int(((splits == s) & (subsets == "exclusive")).sum()) for s in counts}
    raw = np.array([band[-1] ** 2 for band in bands])
    share = {band[0]: float(part) for band, part in zip(bands, 0.66 * raw / raw.sum(), strict=True)}
    if len(bands) > 2:
        # One band that only corrects the others.
        share[bands[2][0]] -= 0.09
        share[bands[0][0]] += 0.09
    features = [
        {
            "band": band[0],
            "encoder": "imported" if options.imported else band[1],
            "view": None if options.imported else band[2],
            "aggregate": "mean",
            "digest": f"{i:02x}" * 32,
            "n_features": band[4],
            "gmacs": None if options.imported else band[5],
            "params_m": None if options.imported else band[6],
            "pass": None if options.imported else pass_name(band),
            "role": band[3],
            "licence": None if options.imported else LICENCE,
        }
        for i, band in enumerate(bands)
    ]
    passes = [
        {"pass": pass_name(band), "bands": [band[0]], "gmacs": band[5], "params_m": band[6]} for band in bands
    ]
    reasons = ("truncated", "empty", "not-an-image")
    failures = [
        {
            "image": f"broken-{i}.jpg",
            "reason": reasons[i % 3],
            "message": f"broken-{i}.jpg ends after {100 * i} bytes; copy it again from its source.",
        }
        for i in range(options.failures)
    ]
    seconds = {"decode": 0.061, "views": 0.0405} | {pass_name(band): 0.02 + band[5] / 5 for band in bands}
    return {
        "recipe": {"title": options.title, "digest": "ab" * 32, "text": recipe},
        "code": {"version": "0.1.0", "commit": "0123456789abcdef0123456789abcdef01234567", "clean": True},
        "dataset": {
            "name": "demo" if options.simulation else "uhd-iqa",
            "path": "demo",
            "counts": counts,
            "exclusive": {s: n for s, n in exclusive.items() if n},
            "mos_range": list(options.mos_range) if options.mos_range else None,
            "simulation": options.simulation,
        },
        "features": features,
        "passes": [] if options.imported else passes,
        "seeds": {"folds": 0, "bootstrap": 0},
        "versions": {"python": "3.11.9", "numpy": "2.4.6", "scikit-learn": "1.9.1", "featbank": "0.1.0"},
        "device": {"device": "cpu", "threads": 2},
        "chosen": [
            {"member": name, "params": {"alpha": 100.0}, "rows": "training, 5 grouped folds"}
            for name in members
        ],
        "fitted_on": {"split": "training", "n": int((splits == "training").sum())},
        "band_share": share,
        "band_share_rows": "evaluated",
        "failures": failures,
        "durations": {"table_s": 0.31, "fit_s": 6.31, "single_bands_s": 214.7, "evaluate_s": 0.842},
        "seconds_per_photo": {} if options.imported else seconds,
        "started": "2025-01-15T10:30:00+00:00",
        "notes": ["82.6 % of the test images come from uploaders who also have training images"],
    }
