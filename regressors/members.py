"""The members of an ensemble: which bands each of them sees, and the search that each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from regressors.bands import WHOLE_TABLE, unknown_bands
from regressors.checks import Estimator, check_choice
from regressors.folds import Fold
from regressors.kinds import KINDS
from regressors.pipelines import band_weight_candidates, make_search

MEMBER_RULES = ("all+leave-one-out", "all", "each")


def list_members(
    members: str | Sequence[Sequence[str]], bands: tuple[str, ...]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """List the members of an ensemble and the bands each of them sees.

    Parameters
    ----------
    members : {"all+leave-one-out", "all", "each"} or list of list of str
        As in `regressors.ensemble.BandEnsemble`.
    bands : tuple of str
        Bands of the table, in order.

    Returns
    -------
    names : list of str
        "all", "without:<band>", "only:<band>", or the bands joined by "+".
    subsets : list of tuple of str
        Bands of each member, in the table's order.

    Raises
    ------
    ValueError
        If a rule or a band is unknown, or two members see the same bands.

    Examples
    --------
    >>> from regressors.members import list_members
    >>> list_members("all+leave-one-out", ("nss", "gist"))[0]
    ['all', 'without:nss', 'without:gist']
    """
    if isinstance(members, str):
        check_choice("BandEnsemble", "members", members, MEMBER_RULES)
        if members == "each":
            return [f"only:{band}" for band in bands], [(band,) for band in bands]
        names, subsets = ["all"], [bands]
        if members == "all+leave-one-out" and len(bands) > 1:
            names += [f"without:{band}" for band in bands]
            subsets += [tuple(other for other in bands if other != band) for band in bands]
        return names, subsets
    subsets = []
    for subset in members:
        if isinstance(subset, str) or not len(subset):
            raise ValueError(
                f"BandEnsemble: each member must be a non-empty list of bands, got {subset!r}. "
                "Write [['a', 'b'], ['c']]."
            )
        if error := unknown_bands("BandEnsemble: members", subset, bands):
            raise error
        subsets.append(tuple(band for band in bands if band in subset))
    if not subsets or len(set(subsets)) != len(subsets):
        raise ValueError(
            f"BandEnsemble: members must be a non-empty list of different subsets, got {members!r}. "
            "Two members on the same bands would be one regressor twice."
        )
    return ["+".join(subset) for subset in subsets], subsets


def restrict_weights(
    candidates: Sequence[Mapping[str, float]], bands: tuple[str, ...], known: tuple[str, ...]
) -> list[dict[str, float]]:
    """Cut ``candidates`` of band weights to the ``bands`` of a member, each distinct one once, its largest weight 1.

    A band that is not named has weight 1; the size of the weights is the penalty's business. A band that is not among
    the ``known`` ones of the table is a ValueError.
    """
    distinct: dict[tuple[float, ...], None] = {}
    for candidate in candidates:
        if error := unknown_bands("BandEnsemble: band_weights", candidate, known):
            raise error
        row = np.array([candidate.get(band, 1.0) for band in bands])
        distinct[tuple(float(w) for w in row / row.max())] = None
    return [dict(zip(bands, row, strict=True)) for row in distinct]


def member_search(
    ensemble: Estimator, bands: tuple[str, ...], known: tuple[str, ...], folds: Sequence[Fold]
) -> Estimator:
    """Make the search of one member, not fitted, with the parameters of its ``ensemble``.

    ``bands`` are those of the member, ``known`` those of the table, ``folds`` row positions (train, test).
    """
    candidates = ensemble.band_weights
    if candidates is None and KINDS[ensemble.estimator].has_band_weights:
        candidates = band_weight_candidates(bands, random_state=ensemble.random_state)
    if candidates is not None:
        candidates = restrict_weights(candidates, bands, known)
    return make_search(
        ensemble.estimator,
        # The single nameless band is selected by leaving all columns in place.
        None if known == (WHOLE_TABLE,) else bands,
        alpha=ensemble.alpha,
        C=ensemble.C,
        epsilon=ensemble.epsilon,
        gamma=ensemble.gamma,
        band_weights=candidates,
        unit_band=ensemble.unit_band,
        cv=folds,
        scoring=ensemble.select_by,
        n_jobs=ensemble.n_jobs,
        random_state=ensemble.random_state,
        reference=ensemble.reference,
    )
