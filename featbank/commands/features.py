"""The commands features and bank: computing features, and looking after those that are stored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from featbank import commands as opt
from featbank.commands import Command, Output, render_rows

_FEATURES_OPTIONS = (
    *(
        opt.DATA,
        opt.IMAGES,
        opt.RECIPE,
        opt.CODE,
        opt.BANK,
        opt.TRUNCATED,
        opt.DEVICE,
        opt.ENGINE,
        opt.PRECISION,
        opt.WORKERS,
    ),
    opt.switch("--retry-failed", "try again photos recorded as unreadable"),
    opt.switch("--rehash", "read every file again, also those whose size and times are unchanged"),
    opt.argument(
        "--cluster dask://HOST:PORT",
        "let the workers of a Dask scheduler compute; they read the photos at the same paths",
    ),
    opt.argument(
        "--shard I/N",
        "only part I (from 0) of N of the images; all parts may run at once into one bank",
        opt.shard_spec,
    ),
)


def _features(options: argparse.Namespace) -> Output:
    """Compute the features a bank lacks. Resumable at any time; running it again computes nothing.

    Each photo is decoded once for all views and encoders. An unreadable photo is recorded with its reason and does
    not stop the run; where all photos fail, the command ends with 1.

    For example:
      featbank features ~/uhd-iqa --recipe starter --bank bank
      featbank features ~/uhd-iqa --recipe icl --bank /shared/bank --shard $SLURM_ARRAY_TASK_ID/16
      featbank features s3://bucket/uhd-iqa --recipe starter --bank s3://bucket/bank
    """
    from featbank.bank import Bank
    from featbank.encoders import check_weights, has_random_weights
    from featbank.errors import ClusterError, DatasetError
    from featbank.extract import FeatureRequest, extract, known_folder, take_shard
    from featbank.recipes.reading import list_variants, read_recipe
    from featbank.remote import as_place
    from featbank.workers import keep_freed_memory

    if options.cluster:
        from featbank.cluster import check_cluster

        check_cluster(options.cluster)
        for name, value, unset in (("device", options.device, "auto"), ("engine", options.engine, None)):
            if value != unset:
                raise ClusterError(
                    f"features: --{name} {value} means this machine, but the cluster's workers compute. Start them "
                    f"with FEATBANK_{name.upper()}={value} instead."
                )
    opt.apply_compute(options)
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
    table = opt.read_data(options)
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
    n_refused = len({failure["image"] for failure in summary.failures})
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
        "refused": {"n": n_refused, "listed": len(images), "share": n_refused / max(1, len(images))},
        "notes": list(table.notes),
        "seconds": summary.seconds,
        "random_weights": [band.name for band in recipe.bands if has_random_weights(band.encoder)],
    }
    # Not one photo with all its features is work that could not be done; a few broken files among good ones are not.
    is_in_vain = bool(summary.failures) and not summary.n_computed and not summary.n_cached
    return Output(document, _features_text(document), 1 if is_in_vain else 0)


def _check_precision(precision: str, encoders: list[str]) -> None:
    """Refuse a precision that the recipe does not name: it is part of a feature's key, which `fit` looks up."""
    from featbank.encoders.spec import parse_encoder_name
    from featbank.encoders.weights import NETWORK_FAMILIES
    from featbank.errors import EncoderError

    names = [parse_encoder_name(text) for text in encoders if text.partition(":")[0] in NETWORK_FAMILIES]
    other = [name for name in names if name.options.get("precision", "fp32") != precision]
    if precision == "bf16" and other:
        raise EncoderError(
            f"features: --precision bf16 changes the numbers, so it must stand in the recipe: write "
            f"{other[0].base}?precision=bf16 and the like for {len(other)} encoders."
        )


def _features_text(document: dict[str, object]) -> str:
    from featbank.encoders import random_weights_note
    from featbank.errors import first_few

    seconds: dict[str, float] = document["seconds"]  # type: ignore[assignment]
    failures: list[dict[str, str]] = document["failures"]  # type: ignore[assignment]
    missing: list[str] = document["missing_images"]  # type: ignore[assignment]
    refused: dict[str, Any] = document["refused"]  # type: ignore[assignment]
    copies: list[dict[str, str]] = document["copies"]  # type: ignore[assignment]
    notes: list[str] = document["notes"]  # type: ignore[assignment]
    lines = [
        f"{document['images']} photos: {document['computed']} computed, {document['cached']} already in the bank, "
        f"{document['missing']} without a readable file, {len(failures)} failed ({seconds['wall']:.1f} s)"
    ]
    if document["computed"]:
        work = {name: spent for name, spent in seconds.items() if name != "wall"}
        lines.append("seconds of work: " + ", ".join(f"{name} {spent:.1f}" for name, spent in work.items()))
    if refused["n"]:
        lines.append(f"refused: {refused['n']:,} of {refused['listed']:,} photos ({refused['share']:.1%})")
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


def _bank_arguments(parser: argparse.ArgumentParser) -> None:
    actions = {
        "ls": "list the features",
        "verify": "read every shard and check it; exit 1 if anything is wrong",
        "export": "write features with image names as CSV, Parquet or NPZ",
        "import": "bring features computed elsewhere",
        "prune": "merge small shards; remove features that are not wanted",
    }
    parsers = opt.add_actions(parser, "action", actions)
    for action in parsers.values():
        opt.BANK(action)
    opt.add(
        parsers["export"],
        opt.CODE,
        opt.argument("file FILE", "file to write: .csv, .parquet or .npz"),
        opt.argument("--data DATA", "dataset that names the images", required=True),
        opt.IMAGES,
        opt.argument("--recipe R", "recipe that names the bands", default="starter"),
    )
    opt.add(
        parsers["import"],
        opt.DATA,
        opt.IMAGES,
        opt.argument(
            "file FILE",
            "NPY, NPZ, MAT, HDF5, CSV, Parquet or Feather file of features; or a folder with an NPY file for each "
            "image, or of shards as clip-retrieval writes them",
        ),
        opt.argument("--band NAME", "name of the band: `imported:NAME` in recipes", required=True),
        opt.argument("--variable V", "array in an NPZ or MAT file that holds several"),
    )
    names = parsers["import"].add_mutually_exclusive_group()
    names.add_argument("--names", metavar="FILE", help="text file with one image name for each row, in order")
    names.add_argument(
        "--names-column",
        "--names-in",
        dest="names_in",
        metavar="V",
        help="column or array that holds the image names",
    )
    opt.add(
        parsers["import"],
        opt.switch("--transpose", "the file has a column for each image"),
        opt.argument(
            "--exclude COLUMN",
            "columns that are no features (repeatable): a pattern for titles; of an array 7 or 0-3, counted from 0",
            default=[],
            action="append",
        ),
        opt.switch("--average-crops", "take the mean over the crops of an array (n, crops, columns)"),
        opt.argument("--gmacs G", "cost of the features for one image, if known", opt.non_negative_number),
        opt.argument("--nonfinite refuse|zero", "NaN and infinite values", default="refuse"),
        opt.switch(
            "--replace",
            "drop an earlier import of the same name for the same images, once this one is stored",
        ),
    )
    opt.add(
        parsers["prune"],
        opt.CODE,
        opt.argument(
            "--recipe R", "keep only features of these recipes (repeatable)", default=[], action="append"
        ),
        opt.switch("--yes", "remove; without it, what would be removed is only listed"),
    )


def _bank(options: argparse.Namespace) -> Output:
    """Look into and look after a feature bank.

    ls lists its features; verify reads every shard and checks its digest; export writes features as CSV, Parquet or
    NPZ; import brings features computed elsewhere; prune merges small shards, and with --recipe removes the
    features that no named recipe uses.

    For example:
      featbank bank ls
      featbank bank verify --bank bank
      featbank bank export features.parquet --data ~/uhd-iqa --recipe starter
      featbank bank import scores.csv --band nss nss_features.mat --gmacs 1.5
      featbank bank prune
    """
    actions = {"ls": _ls, "verify": _verify, "export": _export, "import": _import, "prune": _prune}
    return actions[options.action](options)


def _ls(options: argparse.Namespace) -> Output:
    from featbank.bank import Bank

    bank = Bank(options.bank, create=False)
    rows = [
        {
            "feature": folder.label,
            "rows": len(folder.keys()),
            "columns": folder.n_features,
            "mib": folder.n_bytes() / 2**20,
            "shards": folder.n_shards(),
            "digest": folder.digest[:12],
        }
        for folder in bank.features()
    ]
    failures = len(bank.images.failures())
    return Output(
        {"bank": str(options.bank), "features": rows, "unreadable_images": failures},
        f"{render_rows(rows)}\n{failures} images recorded as unreadable",
    )


def _verify(options: argparse.Namespace) -> Output:
    from featbank.bank import Bank

    problems = Bank(options.bank, create=False).verify()
    rows = [{"path": str(problem.path), "problem": problem.message} for problem in problems]
    text = (
        "\n".join(f"{row['path']}: {row['problem']}" for row in rows)
        if rows
        else "clean: every shard agrees with its digest"
    )
    return Output({"bank": str(options.bank), "clean": not rows, "problems": rows}, text, 1 if rows else 0)


def _export(options: argparse.Namespace) -> Output:
    from featbank.atomic import check_file
    from featbank.bank import Bank, write_features
    from featbank.bank.export import is_export
    from featbank.errors import first_few
    from featbank.extract import stored_folders
    from featbank.feature import FeatureRequest
    from featbank.recipes.reading import read_recipe
    from featbank.table import NOT_COMPUTED, Band, build_table, resolve_band

    check_file(options.file, "bank export", is_export)
    bank = Bank(options.bank, create=False)
    table = opt.read_data(options)
    bands = []
    for band in read_recipe(options.recipe).bands:
        stored = stored_folders(bank, FeatureRequest(band.encoder, band.view, band.aggregate))
        if len(stored) == 1:  # of a program, which need not be run to know its features
            facts = ("unknown", "unknown", "unknown", float("nan"), float("nan"), stored[0].digest)
            bands.append(Band(band.name, band.encoder, band.view, band.aggregate, stored[0], *facts))
        else:
            bands.append(resolve_band(bank, table, band.name, band.encoder, band.view, band.aggregate))
    command = opt.features_command(options, options.data)
    features = build_table(table, bands, bank, command, is_partial=True)
    path = write_features(Path(options.file), features.X)
    missing = {str(reason): list(names) for reason, names in features.left_out.groupby("reason")["image"]}
    document = {
        "file": str(path),
        "rows": len(features.X),
        "columns": features.X.shape[1],
        "left_out": len(features.left_out),
        "missing": missing,
    }
    lines = [f"{len(features.X)} images x {features.X.shape[1]} columns: {path}"]
    if missing:
        reasons = "; ".join(
            f"{len(names):,} {reason} ({first_few(names)})" for reason, names in missing.items()
        )
        lines.append(f"missing: {len(features.left_out):,} of {table.n_images:,} images: {reasons}")
    if NOT_COMPUTED in missing:
        lines.append(f"compute them with `{command}`")
    return Output(document, "\n".join(lines))


def _import(options: argparse.Namespace) -> Output:
    from featbank.bank import Bank
    from featbank.bank.imported import read_feature_file
    from featbank.digest import digest_file, digest_tree
    from featbank.importing import import_features

    table = opt.read_data(options)
    found = read_feature_file(
        options.file,
        variable=options.variable,
        names=options.names_in,
        transpose=options.transpose,
        nonfinite=options.nonfinite,
        own_names=options.names is None,
        exclude=options.exclude,
        average_crops=options.average_crops,
    )
    names = found.names if options.names is None else _read_lines(Path(options.names))
    folder, uncovered = import_features(
        table,
        Bank(options.bank),
        options.band,
        names,
        found.matrix,
        source_digest=digest_tree(options.file) if Path(options.file).is_dir() else digest_file(options.file),
        gmacs=options.gmacs,
        replace=options.replace,
        n_crops=found.n_crops,
    )
    n_others = len(found.matrix) - table.n_images + uncovered
    document: dict[str, Any] = {
        "band": options.band,
        "dataset": table.name,
        "rows": len(found.matrix),
        "columns": folder.n_features,
        "images_without_features": uncovered,
        "rows_of_other_images": n_others,
        "n_crops": found.n_crops,
        "matched_by": "position" if names is None else "name",
        "read_as": found.description,
        "digest": folder.digest,
    }
    first, last = table.frame["image_id"].iloc[[0, -1]]
    matched = f"by position, as the file names no images: first row {first}, last row {last}"
    text = (
        f"band {options.band!r} of dataset {table.name!r}: {len(found.matrix)} rows x {folder.n_features} columns "
        f"({found.description}), matched {'by name' if names else matched}; {uncovered} images of the dataset have "
        f'none. In a recipe: encoder = "imported:{options.band}"'
    )
    if n_others:
        text += f"\n{n_others:,} rows are of images that the dataset does not have, and were left out"
    if found.n_crops > 1:
        text += (
            f'\n{found.n_crops} crops: `rows = "crops"`, with `aggregate = "concat"`, learns from each, otherwise '
            "their columns stand side by side; --average-crops takes their mean"
        )
    return Output(document, text)


def _read_lines(path: Path) -> list[str]:
    from featbank.errors import BankError
    from featbank.remote import read_regular

    try:
        text = read_regular(path, 1 << 27, BankError).decode("utf-8-sig")
        return [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BankError(
            f"bank import: --names must be a text file in UTF-8 with one image name in each line, got {path}: {error}."
        ) from error


def _prune(options: argparse.Namespace) -> Output:
    from featbank.bank import Bank
    from featbank.extract import FeatureRequest, open_folder, stored_folders
    from featbank.recipes.reading import read_recipe

    bank = Bank(options.bank, create=False)
    wanted: set[str] = set()
    for name in options.recipe:
        for band in read_recipe(name).bands:
            request = FeatureRequest(band.encoder, band.view, band.aggregate)
            if band.encoder.startswith("file:"):  # not run, as above
                wanted.update(folder.digest for folder in stored_folders(bank, request))
            elif not band.encoder.startswith("imported:"):
                wanted.add(open_folder(bank, request).digest)
    # Imported features cannot be computed again, so no recipe's absence removes them.
    removable = [
        folder
        for folder in bank.features()
        if options.recipe and folder.digest not in wanted and folder.identity.get("kind") != "imported"
    ]
    rows = [
        {"feature": folder.label, "rows": len(folder.keys()), "digest": folder.digest[:12]}
        for folder in removable
    ]
    if options.yes:
        for folder in removable:
            bank.remove(folder.digest)
    merged = bank.compact()
    verb = "removed" if options.yes else "would be removed (give --yes)"
    lines = [f"{row['feature']} ({row['rows']} rows) {verb}" for row in rows]
    lines.append(f"{merged} shards merged")
    return Output(
        {"features": rows, "removed": bool(options.yes and rows), "shards_merged": merged}, "\n".join(lines)
    )


COMMANDS = {
    "features": Command(_FEATURES_OPTIONS, _features),
    "bank": Command((_bank_arguments,), _bank),
}
