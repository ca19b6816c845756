"""Judges a student on held-out photographs, by a measure that nothing was trained on.

Readouts are fitted on the embedding of pictures of other photographs, folds grouped by photograph, as a user
would fit them on ratings; beside the student stand natural-scene statistics and the same network untrained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.student.distortions import CHAINS, DISTORTIONS, HELD_OUT_CHAINS, N_LEVELS
from experiments.student.training import ShippedPlan
from experiments.student.weak_set import JUDGE, TRAINED_MEASURES, WeakSet
from featbank.distill.network import StudentNetwork, to_input
from regressors.evaluation.comparison import compare_paired
from regressors.evaluation.metrics import srcc
from regressors.pipelines import make_search
from regressors.search import fit_search

_FEWEST: Final = 10
"""Pictures of a kind, fewer of which get no score."""
_FOLDS: Final = {"ridge": 5, "rbf-svr": 3}
_GRIDS: Final[dict[str, dict[str, Any]]] = {
    "ridge": {"alpha": np.logspace(-3, 5, 9)},
    "rbf-svr": {"C": [1.0, 10.0, 100.0], "gamma": [0.1, 0.3, 1.0], "epsilon": [0.1]},
}


def embed(
    network: StudentNetwork, pictures: NDArray[np.uint8], *, device: str = "cpu", batch: int = 64
) -> NDArray[np.float32]:
    """Return embeddings (n, n_features) of pictures (n, height, width, 3)."""
    network = network.to(device).eval()
    with torch.inference_mode():
        blocks = [network(crops.to(device)).float().cpu() for crops in _batches(pictures, batch)]
    return torch.cat(blocks).numpy()


def _batches(pictures: NDArray[np.uint8], batch: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(pictures), batch):
        yield to_input(torch.from_numpy(np.array(pictures[start : start + batch])))


def untrained(
    network: StudentNetwork, pictures: NDArray[np.uint8], *, seed: int = 0, batch: int = 64
) -> StudentNetwork:
    """Return the same architecture with random weights and batch statistics estimated on the pictures."""
    torch.manual_seed(seed)
    fresh = network.like().train()
    for module in fresh.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average over the batches
    with torch.no_grad():
        for crops in _batches(pictures, batch):
            fresh(crops)
    return fresh.eval()


def fit_readout(
    estimator: str, X: NDArray[np.float32], y: NDArray[np.float64], groups: NDArray[np.str_]
) -> GridSearchCV:
    """Fit "ridge" or "rbf-svr" with its parameters chosen on folds grouped by photograph."""
    folds = list(GroupKFold(_FOLDS[estimator]).split(X, y, groups))
    search = make_search(estimator, cv=folds, scoring="neg_root_mean_squared_error", **_GRIDS[estimator])
    return fit_search(search, X.astype(np.float64), y)


def judge(
    weak_set: WeakSet,
    blocks: dict[str, NDArray[np.float32]],
    *,
    n_folds: int = 2,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare feature blocks on held-out photographs.

    Parameters
    ----------
    weak_set : WeakSet
        The rows of held-out photographs alone.
    blocks : dict of float32 array of shape (n, n_features)
        Features of its pictures by name; natural-scene statistics and student are also tried side by side.
    n_folds : int
        Folds of photographs: readouts are fitted on the pictures of all but one and predict those of that one.

    Returns
    -------
    scores : DataFrame
        One row for each block and readout: ``srcc`` to the judge over all pictures, ``held_out_chains`` over those
        of `HELD_OUT_CHAINS`, and one column for each kind.
    differences : DataFrame
        Every pair of blocks with the same readout, see `compare_paired`; photographs drawn with replacement.
    """
    ratings = weak_set.ratings
    photos, kinds = ratings["photo"].to_numpy(dtype=str), ratings["kind"].to_numpy(dtype=str)
    y = ratings[JUDGE].to_numpy()
    folds = list(GroupKFold(n_folds, shuffle=True, random_state=seed).split(y, groups=photos))
    if {"nss", "student"} <= blocks.keys():
        blocks = blocks | {"nss+student": np.hstack([blocks["nss"], blocks["student"]])}
    parts = {"held_out_chains": np.isin(kinds, HELD_OUT_CHAINS)} | {k: kinds == k for k in np.unique(kinds)}
    scores, differences = [], []
    for readout in _GRIDS:
        predictions = {}
        for name, X in blocks.items():
            predicted = predictions[name] = np.empty(len(y))
            for fitted_on, tested in folds:
                model = fit_readout(readout, X[fitted_on], y[fitted_on], photos[fitted_on])
                predicted[tested] = model.predict(X[tested].astype(np.float64))
            row = {"features": name, "readout": readout, "srcc": srcc(y, predicted)}
            for label, chosen in parts.items():
                if chosen.sum() > _FEWEST and np.ptp(y[chosen]) > 0:
                    row[label] = srcc(y[chosen], predicted[chosen])
            scores.append(row)
        pairs = compare_paired(y, predictions, metrics=["srcc"], groups=photos, n_resamples=1000)
        differences.append(pairs.assign(readout=readout))
    return pd.DataFrame(scores), pd.concat(differences, ignore_index=True)


def small_sample_curve(
    weak_set: WeakSet,
    blocks: dict[str, NDArray[np.float32]],
    *,
    sizes: Sequence[int] = (5, 20, 60),
    n_draws: int = 50,
    n_components: int = 16,
    seed: int = 0,
) -> pd.DataFrame:
    """SRCC to the judge after fitting on few pictures, each of another photograph: mean and deviation over draws."""
    ratings = weak_set.ratings
    y, photos = ratings[JUDGE].to_numpy(), ratings["photo"].to_numpy(dtype=str)
    rng = np.random.default_rng(seed)
    scores = []
    for n in sizes:
        for _ in range(n_draws):
            chosen = rng.permutation(np.unique(photos))[:n]
            picked = np.array([rng.choice(np.flatnonzero(photos == photo)) for photo in chosen])
            rest = np.flatnonzero(~np.isin(photos, chosen))
            for name, X in blocks.items():
                pca = PCA(min(n_components, len(picked) - 1), random_state=0)
                model = make_pipeline(StandardScaler(), pca, StandardScaler(), Ridge())
                model.fit(X[picked].astype(np.float64), y[picked])
                score = srcc(y[rest], model.predict(X[rest].astype(np.float64)))
                scores.append({"features": name, "n": n, "srcc": score})
    table = pd.DataFrame(scores).groupby(["n", "features"], sort=False)["srcc"]
    out = table.agg(mean="mean", std=lambda values: values.std(ddof=0)).reset_index()
    return out[["features", "n", "mean", "std"]]


SCORES, DIFFERENCES, CURVE = "judged.csv", "differences.csv", "curve.csv"


def write_shipped_card(name: str, view: str, network: StudentNetwork, plan: ShippedPlan, work: Path) -> str:
    """Return the model card of a shipped student as Markdown, from the files of its making in the folder ``work``."""
    made = json.loads((work / "set" / "plan.json").read_text(encoding="utf-8"))
    scores, differences, curve = (pd.read_csv(work / file) for file in (SCORES, DIFFERENCES, CURVE))
    kinds = [kind for kind in (*DISTORTIONS, *CHAINS) if kind in scores]
    ridge = scores[scores["readout"] == "ridge"].set_index("features")
    gain = differences[(differences["first"] == "nss") & (differences["second"] == "nss+student")]
    columns = [column for column in ("features", "readout", "srcc", "held_out_chains") if column in scores]
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    architecture, n_embedding, _, n_mixed, n_read = network.build
    return template.format(
        name=name,
        view=view,
        architecture=architecture,
        n_features=network.n_features,
        n_statistics=network.n_features - n_embedding - n_read,
        n_embedding=n_embedding,
        n_mixed=n_mixed,
        n_read=n_read,
        photographs=made["photographs"],
        held_out=100 * plan.held_out,
        n_kinds=len(DISTORTIONS),
        n_chains=len(CHAINS) - len(HELD_OUT_CHAINS),
        n_levels=N_LEVELS,
        measures=", ".join(TRAINED_MEASURES),
        judge=JUDGE,
        chains=" and ".join(HELD_OUT_CHAINS),
        scores=_table(scores[columns]),
        gains="\n".join(
            f"- {row.readout}: {-row.difference:+.3f} [{-row.high:+.3f}, {-row.low:+.3f}]"
            for row in gain.itertuples()
        ),
        kinds=_table(ridge[kinds].T.rename_axis("kind").reset_index()),
        curve=_table(curve),
    )


def _table(frame: pd.DataFrame) -> str:
    rows = frame.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value)).to_numpy()
    head = [str(column) for column in frame.columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
