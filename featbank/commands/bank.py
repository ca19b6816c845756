"""Look into and look after a feature bank.

ls lists its features; verify reads every shard and checks its digest; export writes features as CSV, Parquet
or NPZ; import brings features computed elsewhere; prune merges small shards, and with --recipe removes the
features that no named recipe uses.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from featbank.commands import Output
from featbank.commands.list import render_rows
from featbank.commands.options import add_bank, add_code, add_data, non_negative_number

EXAMPLE = """examples:
  featbank bank ls
  featbank bank verify --bank bank
  featbank bank export features.parquet --data ~/uhd-iqa --recipe starter
  featbank bank import scores.csv --band nss nss_features.mat --gmacs 1.5
  featbank bank prune"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("ls", "list the features"),
        ("verify", "read every shard and check it; exit 1 if anything is wrong"),
        ("export", "write features with image names as CSV, Parquet or NPZ"),
        ("import", "bring features computed elsewhere"),
        ("prune", "merge small shards; remove features that are not wanted"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        add_bank(action)
        # The outer parser adds --json before the action; people write it after.
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name in _ADD:
            _ADD[name](action)


def _add_export(parser: argparse.ArgumentParser) -> None:
    add_code(parser)
    parser.add_argument("file", metavar="FILE", help="file to write: .csv, .parquet or .npz")
    parser.add_argument("--data", metavar="DATA", required=True, help="dataset that names the images")
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the images, if they do not lie beside the metadata"
    )
    parser.add_argument(
        "--recipe", metavar="R", default="starter", help="recipe that names the bands (default: starter)"
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("file", metavar="FILE", help="NPY, NPZ, CSV, Parquet or MAT file of features")
    parser.add_argument(
        "--band", metavar="NAME", required=True, help="name of the band: `imported:NAME` in recipes"
    )
    parser.add_argument("--variable", metavar="V", help="array in an NPZ or MAT file that holds several")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--names", metavar="FILE", help="text file with one image name for each row, in order")
    names.add_argument("--names-in", metavar="V", help="column or array that holds the image names")
    parser.add_argument("--transpose", action="store_true", help="the file has a column for each image")
    parser.add_argument(
        "--gmacs", metavar="G", type=non_negative_number, help="cost of the features for one image, if known"
    )
    parser.add_argument(
        "--nonfinite",
        choices=("refuse", "zero"),
        default="refuse",
        help="NaN and infinite values (default: refuse)",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="drop an earlier import of the same name for the same images, once this one is stored",
    )


def _add_prune(parser: argparse.ArgumentParser) -> None:
    add_code(parser)
    parser.add_argument(
        "--recipe",
        metavar="R",
        action="append",
        default=[],
        help="keep only features of these recipes (repeatable)",
    )
    parser.add_argument(
        "--yes", action="store_true", help="remove; without it, what would be removed is only listed"
    )


_ADD = {"export": _add_export, "import": _add_import, "prune": _add_prune}


def run(options: argparse.Namespace) -> Output:
    """Act."""
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
    from featbank.datasets import read_dataset
    from featbank.jobs import FeatureRequest
    from featbank.known_features import stored_folders
    from featbank.recipes.reading import read_recipe
    from featbank.table import Band, build_table, resolve_band

    check_file(options.file, "bank export", is_export)
    bank = Bank(options.bank, create=False)
    table = read_dataset(options.data, images=options.images)
    bands = []
    for band in read_recipe(options.recipe).bands:
        stored = stored_folders(bank, FeatureRequest(band.encoder, band.view, band.aggregate))
        if len(stored) == 1:  # of a program, which need not be run to know its features
            facts = ("unknown", "unknown", "unknown", float("nan"), float("nan"), stored[0].digest)
            bands.append(Band(band.name, band.encoder, band.view, band.aggregate, stored[0], *facts))
        else:
            bands.append(resolve_band(bank, table, band.name, band.encoder, band.view, band.aggregate))
    again = f"featbank features {options.data} --recipe {options.recipe} --bank {options.bank}"
    features = build_table(table, bands, bank, again)
    path = write_features(Path(options.file), features.X)
    document = {
        "file": str(path),
        "rows": len(features.X),
        "columns": features.X.shape[1],
        "left_out": len(features.left_out),
    }
    return Output(document, f"{len(features.X)} images x {features.X.shape[1]} columns: {path}")


def _import(options: argparse.Namespace) -> Output:
    from featbank.bank import Bank, read_feature_file
    from featbank.datasets import read_dataset
    from featbank.digest import digest_file
    from featbank.importing import import_features

    table = read_dataset(options.data, images=options.images)
    found = read_feature_file(
        options.file,
        variable=options.variable,
        names=options.names_in,
        transpose=options.transpose,
        nonfinite=options.nonfinite,
        own_names=options.names is None,
    )
    names = found.names if options.names is None else _read_lines(Path(options.names))
    folder, uncovered = import_features(
        table,
        Bank(options.bank),
        options.band,
        names,
        found.matrix,
        source_digest=digest_file(options.file),
        gmacs=options.gmacs,
        replace=options.replace,
    )
    document: dict[str, Any] = {
        "band": options.band,
        "dataset": table.name,
        "rows": len(found.matrix),
        "columns": folder.n_features,
        "images_without_features": uncovered,
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
    from featbank.extract import FeatureRequest, open_folder
    from featbank.known_features import stored_folders
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
