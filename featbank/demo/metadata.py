"""The release's own tables: one row of metadata per photo, and tags.

Columns, order and quoting are those of the UHD-IQA release: text in quotation marks, numbers bare, an
empty ``subset`` as ``""``. Popularity is drawn to match the release's distributions, with a weak link to
MOS; no page, site or person stands behind any row.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from featbank.demo.plan import PhotoPlan
from featbank.demo.scenes import SCENES
from featbank.digest import digest_bytes, seed_from

COLUMNS = (
    "image_name", "quality_mos", "set", "subset", "orig_width", "orig_height", "views", "likes", "favorites",
    "downloads", "comments", "image_bytes", "user_name", "page_url", "image_name_orig",
)  # fmt: skip

TAG_COLUMNS = ("image_name", "tag", "machine_confidence", "parents")

_MOS_LINK = 0.25
"""Correlation of the logarithm of views with standardised MOS; the release's own rank correlation is 0.17."""


def original_name(plan: PhotoPlan, seed: int) -> str:
    """Name of the file the photo was made from, a digest as in the release; tags refer to it."""
    return digest_bytes(f"demo {seed} {plan.name}".encode())[:54] + ".jpg"


def metadata_rows(plans: list[PhotoPlan], mos: list[float], seed: int) -> list[dict[str, Any]]:
    """Make the rows of ``uhd-iqa-metadata.csv``.

    Parameters
    ----------
    plans : list of PhotoPlan
    mos : list of float
        MOS of each photo, same order.
    seed : int

    Returns
    -------
    list of dict
        Keys are :data:`COLUMNS`. ``image_bytes`` is, as in the release, the size of the original file,
        which is not kept: drawn, so that a photo's compression cannot be read from it.
    """
    centre, spread = float(np.mean(mos)), max(float(np.std(mos)), 1e-9)
    rows = []
    for plan, score in zip(plans, mos, strict=True):
        rng = np.random.default_rng(seed_from("metadata", str(seed), plan.name))
        z = float(np.clip((score - centre) / spread, -3.0, 3.0))
        fame = _MOS_LINK * z + np.sqrt(1.0 - _MOS_LINK**2) * rng.normal()
        # Medians, spreads and slopes of the release's own columns in natural logarithms.
        views = int(np.exp(9.91 + 1.38 * fame))
        favorites = 11 + int(np.exp(5.0 + 0.76 * fame + rng.normal(0.0, 0.24)))
        likes = 11 + int(np.exp(np.log(favorites) - 0.17 + rng.normal(0.0, 0.27)))
        height = round(plan.original_width * plan.height / plan.width)
        pixels = plan.original_width * height
        rows.append(
            {
                "image_name": plan.name,
                "quality_mos": score,
                "set": plan.split,
                "subset": plan.subset,
                "orig_width": plan.original_width,
                "orig_height": height,
                "views": max(500, views),
                "likes": likes,
                "favorites": favorites,
                "downloads": max(60, int(views * np.exp(-0.82 + rng.normal(0.0, 0.26)))),
                "comments": int(likes * np.exp(-2.27 + rng.normal(0.0, 0.7))),
                "image_bytes": int(pixels * 0.2 * np.exp(rng.normal(0.0, 0.5))),
                "user_name": plan.uploader,
                "page_url": "",
                "image_name_orig": original_name(plan, seed),
            }
        )
    return rows


def tag_rows(plans: list[PhotoPlan], seed: int) -> list[dict[str, Any]]:
    """Make the rows of ``uhd-iqa-tags.csv``: the kind's tags, each with the more general ones as parents."""
    rows = []
    for plan in plans:
        rng = np.random.default_rng(seed_from("tags", str(seed), plan.name))
        tags = SCENES[plan.kind].tags
        for place, tag in enumerate(tags):
            rows.append(
                {
                    "image_name": original_name(plan, seed),
                    "tag": tag,
                    "machine_confidence": round(float(rng.uniform(70.0, 99.9)), 2),
                    "parents": ", ".join(tags[place + 1 :]),
                }
            )
    return rows


def to_csv(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """Write rows as CSV text with the release's quoting and Unix line ends."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
