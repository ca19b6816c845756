"""Draw the figures of the page on SRCC from simulations: ``python docs/pictures/draw.py``.

They are deterministic and committed; the page quotes the numbers that are printed.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from regressors import bootstrap_ci, make_folds, make_search, srcc
from regressors.search import fit_search

FOLDER = Path(__file__).parent
BLUE, ORANGE, GREY = "#3949ab", "#c4500c", "#8a94a0"
STYLE = {
    "svg.hashsalt": "featbank",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
}
Vector = NDArray[np.float64]


def axes(width: float = 6.4, height: float = 3.0) -> Axes:
    """Open a figure with one frame."""
    return plt.subplots(figsize=(width, height))[1]


def save(name: str) -> None:
    """Write the figure without a date."""
    plt.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    plt.close()


def rated(n: int, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """Draw n photos: MOS, and predictions that correlate with it at .85."""
    mos = rng.normal(size=n)
    return mos, 0.85 * mos + np.sqrt(1 - 0.85**2) * rng.normal(size=n)


def interval() -> None:
    """Draw the interval against the number of photos."""
    rng = np.random.default_rng(0)
    sizes, ends = (15, 30, 60, 120, 250, 500, 1000, 2000), []
    for n in sizes:
        drawn = [
            bootstrap_ci(*rated(n, rng), metrics=["srcc"], n_resamples=300, random_state=k)["srcc"]
            for k in range(20)
        ]
        ends.append(np.mean(drawn, axis=0))
        print(f"interval: {n} photos, [{ends[-1][0]:.2f}, {ends[-1][1]:.2f}]")
    low, high = np.array(ends).T
    ax = axes()
    ax.fill_between(sizes, low, high, color=BLUE, alpha=0.25)
    ax.plot(sizes, high, color=BLUE)
    ax.plot(sizes, low, color=BLUE)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n}" for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("test photos")
    ax.set_ylabel("95 % interval of the SRCC")
    save("interval")


def groups() -> None:
    """Draw noise as features and noise as MOS, five near copies of each photo: folds by row and by photo."""
    rng = np.random.default_rng(0)
    n, copies, width = 120, 5, 200
    X = np.repeat(rng.normal(size=(n, width)), copies, axis=0) + 0.1 * rng.normal(size=(n * copies, width))
    mos, photo = np.repeat(rng.normal(size=n), copies), np.repeat(np.arange(n), copies)
    _, frames = plt.subplots(1, 2, figsize=(6.4, 3.0), sharey=True)
    kinds = {"rows split freely": np.arange(n * copies), "copies kept together": photo}
    for ax, (title, key), colour in zip(frames, kinds.items(), (ORANGE, BLUE), strict=True):
        search = make_search("ridge", alpha=np.logspace(-3, 3, 7), cv=make_folds(mos, key, random_state=0))
        held_out = fit_search(search, X, mos).oof_predictions_
        score = srcc(mos, held_out)
        print(f"groups: {title}, SRCC {score:.2f}")
        ax.plot(mos[::3], held_out[::3], ".", color=colour, alpha=0.6, markersize=4)
        ax.set_title(f"{title}: SRCC {score:.2f}", fontsize=11)
        ax.set_xlabel("MOS (noise)")
    frames[0].set_ylabel("held-out prediction")
    save("groups")


def attempts() -> None:
    """Draw the best of several equally good attempts, each judged on 100 photos of its own."""
    rng = np.random.default_rng(0)
    scores = np.array([[srcc(*rated(100, rng)) for _ in range(20)] for _ in range(300)])
    tries = np.arange(1, 21)
    best = [scores[:, :k].max(axis=1).mean() for k in tries]
    print(f"attempts: one {best[0]:.3f}, best of five {best[4]:.3f}, best of twenty {best[-1]:.3f}")
    ax = axes()
    ax.plot(tries, best, color=BLUE, marker="o", markersize=4)
    ax.axhline(best[0], color=GREY, linewidth=1)
    ax.set_xticks((1, 5, 10, 15, 20))
    ax.set_xlabel("attempts of which the best is reported")
    ax.set_ylabel("mean SRCC, 100 photos")
    save("attempts")


def permutation() -> None:
    """Draw how near zero fits on shuffled MOS score, with the choice of the penalty included."""
    rng = np.random.default_rng(0)
    n = 150
    X = rng.normal(size=(n, 40))
    mos = X[:, :3].sum(axis=1) + 2 * rng.normal(size=n)
    folds = make_folds(mos, np.arange(n), random_state=0)

    def score(target: Vector) -> float:
        search = make_search("ridge", alpha=np.logspace(-1, 4, 6), cv=folds)
        return srcc(target, fit_search(search, X, target).oof_predictions_)

    null, real = [score(rng.permutation(mos)) for _ in range(200)], score(mos)
    print(f"permutation: real {real:.2f}, shuffled {min(null):.2f} to {max(null):.2f}")
    ax = axes()
    ax.hist(null, bins=24, color=GREY, label="200 fits on shuffled MOS")
    ax.axvline(real, color=ORANGE, linewidth=2, label="the fit on the real MOS")
    ax.set_xlabel("SRCC of held-out predictions")
    ax.set_ylabel("fits")
    ax.legend(frameon=False)
    save("permutation")


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        interval()
        groups()
        attempts()
        permutation()
