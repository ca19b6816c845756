"""See to the weights of network encoders: where they come from, whether they are here, whether they are whole.

Weights lie in the folder named by FEATBANK_WEIGHTS, else in the user's cache. list shows what is known and
what is here; fetch downloads from the publisher; add takes in a file that was fetched by other means. Both
compare the digest with the published one, or record it where none is published, refuse files that would run
code, demand exactly the network's tensors, and keep one converted safetensors copy. Nothing is ever
downloaded by any other command. Restricted or unstated terms need --accept-licence with the licence's name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from featbank.commands import Output
from featbank.commands.list import render_rows

EXAMPLE = """examples:
  featbank weights list
  featbank weights list --recipe icl
  featbank weights fetch checkpoint:arniqa
  featbank weights fetch --recipe balanced
  featbank weights add checkpoint:reiqa-quality quality_aware_r50.pth
  featbank weights add checkpoint:contrique CONTRIQUE_checkpoint25.tar --accept-licence unstated"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("list", "list known weights: licence, whether they are here, whether they are whole"),
        ("fetch", "download weights from their publisher"),
        ("add", "take in a file that was fetched by other means"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        # The outer parser adds --json before the action; people write it after.
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name == "list":
            action.add_argument("--recipe", metavar="R", help="only what this recipe needs")
            action.add_argument(
                "--verify", action="store_true", help="read the files and check their tensors"
            )
            continue
        if name == "fetch":
            action.add_argument(
                "names", metavar="NAME", nargs="*", help="encoder, for example checkpoint:arniqa"
            )
            action.add_argument("--recipe", metavar="R", help="everything that this recipe lacks")
        else:
            action.add_argument("name", metavar="NAME", help="encoder, for example checkpoint:arniqa")
            action.add_argument("file", metavar="FILE", help="the file as published")
        action.add_argument(
            "--accept-licence",
            metavar="LICENCE",
            action="append",
            default=[],
            help="your word that you accept this licence, by its name as listed; may be given several times",
        )


def run(options: argparse.Namespace) -> Output:
    """Carry out the action."""
    return {"list": _list, "fetch": _fetch, "add": _add}[options.action](options)


def _list(options: argparse.Namespace) -> Output:
    from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS
    from featbank.encoders.weights import is_present, read_record, weights_folder, weights_path

    if options.recipe:
        sources = _sources_of_recipe(options.recipe)
    else:
        sources = [*(sheet.source for sheet in SHEETS.values()), LEARNED_PROMPTS]
    rows: list[dict[str, Any]] = []
    notes: dict[str, str] = {}
    exit_code = 0
    for source in sources:
        record = read_record(source)
        state = "here" if is_present(source) else "recorded, file elsewhere" if record else "missing"
        if options.verify and is_present(source):
            state = _verified(source)
            exit_code = max(exit_code, int(state != "here, whole"))
        rows.append(
            {
                "name": source.name,
                "state": state,
                "licence": source.licence,
                "terms": source.terms,
                "published_digest": source.sha256[:12] or None,
                "recorded_digest": str(record["published_sha256"])[:12] if record else None,
                "megabytes": source.size_bytes / 1e6 if source.size_bytes else None,
                "from": source.url or source.page,
            }
        )
        sheet = SHEETS.get(source.name.partition(":")[2]) if source.name.startswith("checkpoint:") else None
        if sheet is not None and sheet.note:
            notes[source.name] = sheet.note
    document = {
        "folder": str(weights_folder()),
        "weights": [
            row | {"path": str(weights_path(source)), "note": notes.get(source.name, "")}
            for row, source in zip(rows, sources, strict=True)
        ],
    }
    lines = [f"folder {weights_folder()}", "", render_rows(rows), ""]
    lines += [f"{name}: {note}" for name, note in notes.items()]
    return Output(document, "\n".join(lines).rstrip(), exit_code)


def _verified(source: Any) -> str:  # noqa: ANN401 - WeightsSource, imported late
    from featbank.encoders.networks.loading import load_stored
    from featbank.errors import EncoderError

    try:
        load_stored(source)
    except EncoderError as error:
        return f"DAMAGED: {error}"
    return "here, whole"


def _sources_of_recipe(name: str) -> list[Any]:
    from featbank.encoders.weights import find_sources
    from featbank.recipes.reading import read_recipe

    recipe = read_recipe(name)
    return list({s.name: s for band in recipe.bands for s in find_sources(band.encoder)}.values())


def _fetch(options: argparse.Namespace) -> Output:
    from featbank.commands.fetching import fetch
    from featbank.encoders.weights import find_sources, is_present
    from featbank.errors import EncoderError

    sources = [source for name in options.names for source in find_sources(name)]
    if options.recipe:
        sources += [source for source in _sources_of_recipe(options.recipe) if not is_present(source)]
    if not sources and not options.recipe:
        raise EncoderError("weights fetch: name an encoder, or a recipe with --recipe R.")
    sources = list({source.name: source for source in sources}.values())
    unaccepted = [s for s in sources if s.terms != "open" and s.licence not in options.accept_licence]
    by_hand = [s for s in sources if not s.url]
    if unaccepted or by_hand:
        lines = [
            f"  {s.name}: {s.terms} terms, {s.licence} ({s.page}); add --accept-licence {s.licence}"
            for s in unaccepted
        ]
        lines += [
            f"  {s.name}: no direct address; fetch it from {s.page} and run `{s.command}`" for s in by_hand
        ]
        raise EncoderError("weights fetch: nothing was downloaded, because\n" + "\n".join(lines))
    records = []
    for source in sources:
        with fetch(source) as path:
            accepted = source.licence if source.licence in options.accept_licence else ""
            records.append(_take_in(source.name, path, accepted))
    return _records(records)


def _add(options: argparse.Namespace) -> Output:
    from featbank.encoders.weights import find_sources
    from featbank.errors import EncoderError

    path = Path(options.file)
    if not path.is_file():
        raise EncoderError(f"weights add: there is no file {options.file!r}.")
    licences = {source.licence for source in find_sources(options.name)[:1]}
    accepted = next(
        (word for word in options.accept_licence if word in licences), "".join(options.accept_licence[:1])
    )
    return _records([_take_in(options.name, path, accepted)])


def _take_in(name: str, path: Path, accepted: str) -> dict[str, Any]:
    """Convert and keep a file; the only actions that need the deep-learning libraries."""
    from featbank.errors import EncoderError

    try:
        from featbank.encoders.networks.build import take_in_weights
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"weights: taking in {name} needs the package {error.name!r}, which is not installed. "
            "Install the optional packages of network encoders: pip install 'featbank[encoders]'."
        ) from error
    return take_in_weights(name, path, accepted)


def _records(records: list[dict[str, Any]]) -> Output:
    lines = [
        f"{record['name']}: {record['n_tensors']} tensors kept, SHA-256 of the file {record['published_sha256']} ("
        + ("as published)" if record["digest_was_published"] else "none is published; recorded)")
        for record in records
    ]
    return Output({"weights": records}, "\n".join(lines) or "nothing is missing")
