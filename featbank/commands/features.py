"""Compute the features a bank lacks. Resumable at any time; running it again computes nothing.

Each photo is decoded once for all views and encoders. An unreadable photo is recorded with its reason and
does not stop the run; where all photos fail, the command ends with 1.
"""

from __future__ import annotations

import argparse

from featbank.commands import Output
from featbank.commands.options import (
    add_bank,
    add_compute,
    add_data,
    add_recipe,
    apply_compute,
    shard_spec,
)

EXAMPLE = """examples:
  featbank features ~/uhd-iqa --recipe starter --bank bank
  featbank features ~/uhd-iqa --recipe icl --bank /shared/bank --shard $SLURM_ARRAY_TASK_ID/16
  featbank features s3://bucket/uhd-iqa --recipe starter --bank s3://bucket/bank"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_data(parser)
    add_recipe(parser)
    add_bank(parser)
    add_compute(parser)
    parser.add_argument("--retry-failed", action="store_true", help="try again photos recorded as unreadable")
    parser.add_argument(
        "--rehash",
        action="store_true",
        help="read every file again, also those whose size and times are unchanged",
    )
    parser.add_argument(
        "--cluster",
        metavar="dask://HOST:PORT",
        help="let the workers of a Dask scheduler compute; they read the photos at the same paths",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=shard_spec,
        help="only part I (from 0) of N of the images; all parts may run at once into one bank",
    )


def run(options: argparse.Namespace) -> Output:
    """Extract."""
    from featbank.bank import Bank
    from featbank.cluster import check_cluster
    from featbank.datasets import read_dataset
    from featbank.encoders import check_weights, has_random_weights
    from featbank.errors import ClusterError, DatasetError
    from featbank.extract import FeatureRequest, extract, take_shard
    from featbank.known_features import known_folder
    from featbank.recipes.reading import list_variants, read_recipe
    from featbank.remote import as_place
    from featbank.workers import keep_freed_memory

    if options.cluster:
        check_cluster(options.cluster)
        for name, value, unset in (("device", options.device, "auto"), ("engine", options.engine, None)):
            if value != unset:
                raise ClusterError(
                    f"features: --{name} {value} means this machine, but the cluster's workers compute. Start them "
                    f"with FEATBANK_{name.upper()}={value} instead."
                )
    apply_compute(options)
    keep_freed_memory()  # with one worker this process does the work
    recipe = read_recipe(options.recipe)
    # What a search may choose is computed with the rest.
    bands = [variant.request for row in list_variants(recipe).values() for variant in row]
    _check_precision(options.precision, [band.encoder for band in bands])
    requests = [
        FeatureRequest(band.encoder, band.view, band.aggregate)
        for band in bands
        if not band.encoder.startswith("imported:")
    ]
    # All missing weights at once, before any image is read or a bank is made; asking for them imports the networks'
    # libraries.
    old = Bank(options.bank) if as_place(options.bank).is_dir() else None
    check_weights(r.encoder for r in requests if old is None or known_folder(old, r) is None)
    table = read_dataset(options.data, images=options.images)
    bank = Bank(options.bank)
    images = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    if options.shard:
        images = take_shard(images, *options.shard)
    summary = extract(
        images,
        requests,
        bank,
        workers=options.workers,
        cluster=options.cluster,
        retry_failed=options.retry_failed,
        rehash=options.rehash,
        show_progress=True,
    )
    if requests and images and summary.n_images == 0 and not summary.failures:
        raise DatasetError(
            f"features: not one of the {len(images)} images of {options.data!r} has a readable file. "
            "Name their folder with --images DIR, or look with `featbank check`."
        )
    document: dict[str, object] = {
        "dataset": table.name,
        "recipe": recipe.name,
        "shard": "{}/{}".format(*options.shard) if options.shard else None,
        "images": summary.n_images,
        "computed": summary.n_computed,
        "cached": summary.n_cached,
        "missing": len(summary.missing),
        "missing_images": summary.missing,
        "copies": [{"image": image, "copy_of": first} for image, first in summary.copies],
        "failures": summary.failures,
        "notes": list(table.notes),
        "seconds": summary.seconds,
        "random_weights": [band.name for band in recipe.bands if has_random_weights(band.encoder)],
    }
    # Not one photo with all its features is work that could not be done; a few broken files among good ones are not.
    is_in_vain = bool(summary.failures) and not summary.n_computed and not summary.n_cached
    return Output(document, _text(document), 1 if is_in_vain else 0)


def _check_precision(precision: str, encoders: list[str]) -> None:
    """Refuse a precision that the recipe does not name: it is part of a feature's key, which `fit` looks up.

    Raises
    ------
    EncoderError
        If a network would run in another precision than its name says.
    """
    from featbank.encoders.names import parse_encoder_name
    from featbank.encoders.weights import NETWORK_FAMILIES
    from featbank.errors import EncoderError

    names = [parse_encoder_name(text) for text in encoders if text.partition(":")[0] in NETWORK_FAMILIES]
    other = [name for name in names if name.options.get("precision", "fp32") != precision]
    if precision == "bf16" and other:
        raise EncoderError(
            f"features: --precision bf16 changes the numbers, so it must stand in the recipe: write "
            f"{other[0].base}?precision=bf16 and the like for {len(other)} encoders."
        )


def _text(document: dict[str, object]) -> str:
    from featbank.encoders import random_weights_note
    from featbank.errors import first_few

    seconds: dict[str, float] = document["seconds"]  # type: ignore[assignment]
    failures: list[dict[str, str]] = document["failures"]  # type: ignore[assignment]
    missing: list[str] = document["missing_images"]  # type: ignore[assignment]
    copies: list[dict[str, str]] = document["copies"]  # type: ignore[assignment]
    notes: list[str] = document["notes"]  # type: ignore[assignment]
    lines = [
        f"{document['images']} photos: {document['computed']} computed, {document['cached']} already in the bank, "
        f"{document['missing']} without a readable file, {len(failures)} failed ({seconds['wall']:.1f} s)"
    ]
    if document["computed"]:
        work = {name: spent for name, spent in seconds.items() if name != "wall"}
        lines.append("seconds of work: " + ", ".join(f"{name} {spent:.1f}" for name, spent in work.items()))
    lines += notes
    if missing:
        lines.append(f"without a readable file: {first_few(missing, 10)}")
    if copies:
        pairs = [f"{copy['image']} of {copy['copy_of']}" for copy in copies]
        lines.append(f"copies, byte for byte, computed once: {len(copies):,} ({first_few(pairs)})")
    if document["random_weights"]:
        lines.append(random_weights_note(document["random_weights"]))  # type: ignore[arg-type]
    lines += [f"  {failure['image']}: {failure['message']}" for failure in failures[:20]]
    if len(failures) > 20:
        lines.append(f"  ... and {len(failures) - 20} more (all of them with --json)")
    return "\n".join(lines)
