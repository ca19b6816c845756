"""Reads published weights without running their code, maps their keys, and keeps one converted copy.

Everything is exact: after mapping, the keys and shapes must be those of the network, else an error lists the
differing ones and nothing is kept. Files are read as safetensors or with torch's weights-only reader.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from featbank.atomic import replacing, write_file
from featbank.digest import digest_file
from featbank.encoders.networks.catalogue import Blueprint, CheckpointSheet
from featbank.encoders.weights import (
    RECORD_VERSION,
    WeightsSource,
    describe_missing,
    read_record,
    weights_path,
)
from featbank.errors import EncoderError, EncoderSetupError, first_few
from featbank.remote import check_regular

State = dict[str, torch.Tensor]
_N_SHOWN = 8
MAX_WEIGHTS_BYTES = 1 << 36
"""Larger files are not hashed: no network of this field comes near."""


def read_published(path: Path) -> object:
    """Read a weights file as published: safetensors, or a torch file of tensors and plain values.

    Raises EncoderError if the file cannot be read, or would run code.
    """
    check_regular(path, MAX_WEIGHTS_BYTES, EncoderError)
    with path.open("rb") as file:
        head = file.read(16)
    if head.lstrip()[:1] == b"<":
        raise EncoderError(
            f"weights: {str(path)!r} is a web page, not a weights file; the site asked for a confirmation. "
            "Open its address in a browser, save the file, and take it in with `featbank weights add`."
        )
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except Exception as error:  # its library has several kinds
            raise EncoderError(
                f"weights: {str(path)!r} is not a complete safetensors file: {error}."
            ) from error
    try:
        # Trainers keep their command line in the file: a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EncoderError(
            f"weights: {str(path)!r} was refused: it holds more than tensors and plain values and would run code "
            f"when loaded ({str(error).splitlines()[0]}). Get the file from its publisher again."
        ) from error
    except Exception as error:  # whatever a damaged archive or pickle makes torch stumble over
        raise EncoderError(
            f"weights: {str(path)!r} is not a readable weights file ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'cut short'}). Fetch it again."
        ) from error


def check_published(path: Path, source: WeightsSource) -> str:
    """Compare a file's digest with the published one and return it.

    Raises EncoderError if they differ: the file is damaged, changed, or another one.
    """
    check_regular(path, MAX_WEIGHTS_BYTES, EncoderError)
    found = digest_file(path)
    if not found.startswith(source.sha256):
        raise EncoderError(
            f"weights: the SHA-256 of {str(path)!r} must be {source.sha256}{'...' if len(source.sha256) < 64 else ''} "
            f"({source.name}), got {found}. The download was cut, or it is another file; fetch it again from "
            f"{source.url or source.page}. Nothing was kept."
        )
    return found


def map_checkpoint(sheet: CheckpointSheet, published: object, expected: Mapping[str, torch.Tensor]) -> State:
    """Turn what `read_published` gave into the state of the network: the keys of ``expected``, floats as float32.

    Raises EncoderError if a key is missing, left over, or of another shape; the message lists them.
    """
    name, tensors = sheet.source.name, published
    if sheet.state_path:
        tensors = published.get(sheet.state_path) if isinstance(published, dict) else None
    if not isinstance(tensors, dict):
        place = f" under {sheet.state_path!r}" if sheet.state_path else ""
        found = list(published) if isinstance(published, dict) else type(published).__name__
        raise EncoderError(
            f"weights: {name} must hold a dictionary of tensors{place}, got {found!s:.200}. "
            "This is another file than the published one."
        )
    state: State = {}
    unexpected: list[str] = []
    for key, value in tensors.items():
        target = _map_key(sheet, str(key))
        if target is None:
            unexpected.append(str(key))
        elif target and isinstance(value, torch.Tensor):
            state[target] = value
        elif target:
            unexpected.append(f"{key} (not a tensor)")
    for key, tensor in expected.items():
        if key not in state and any(re.fullmatch(pattern, key) for pattern in sheet.filled):
            state[key] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    return match_state(name, state, expected, unexpected)


def _map_key(sheet: CheckpointSheet, key: str) -> str | None:
    """Return the network's key, an empty text for a dropped one, None for one the sheet does not know."""
    numbered = re.fullmatch(r"_blocks\.(\d+)\.(.+)", key)
    if sheet.blocks_by_stage and numbered:
        places = [
            f"{stage}.{i}" for stage, n_blocks in enumerate(sheet.blocks_by_stage) for i in range(n_blocks)
        ]
        index = int(numbered[1])
        key = f"_blocks.{places[index] if index < len(places) else index}.{numbered[2]}"
    for pattern, replacement in sheet.rules:
        found = re.fullmatch(pattern, key)
        if found:
            return found.expand(replacement)
    return "" if any(re.fullmatch(pattern, key) for pattern in sheet.drop) else None


def match_state(
    name: str,
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    unexpected: Sequence[str] = (),
) -> State:
    """Demand the same keys and shapes; see `map_checkpoint`.

    Raises EncoderError: Listing what is missing, left over, or of another shape.
    """
    common = {key: (state[key], tensor) for key, tensor in expected.items() if key in state}
    found = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [*unexpected, *(key for key in state if key not in expected)],
        "of another shape": [
            f"{key} {tuple(got.shape)} instead of {tuple(tensor.shape)}"
            for key, (got, tensor) in common.items()
            if got.shape != tensor.shape
        ],
        "of another kind": [
            f"{key} {got.layout} {got.dtype} instead of {tensor.dtype}"
            for key, (got, tensor) in common.items()
            if got.layout != torch.strided
            or got.is_quantized
            or (got.is_floating_point(), got.is_complex())
            != (tensor.is_floating_point(), tensor.is_complex())
        ],
    }
    problems = [f"{len(keys)} {kind}: {first_few(keys, _N_SHOWN)}" for kind, keys in found.items() if keys]
    if problems:
        raise EncoderError(
            f"weights: the tensors of {name} must be exactly those of the network, got {'; '.join(problems)}. "
            "A half-loaded network gives wrong features without a sign, so nothing was kept."
        )
    # Published files hold views of other tensors, and tensors of another order in memory: each becomes one of its own.
    return {
        key: state[key]
        .to(torch.float32 if state[key].is_floating_point() else state[key].dtype)
        .clone(memory_format=torch.contiguous_format)
        for key in expected
    }


def digest_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, whatever file they lie in."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().contiguous()
        digest.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def take_in(
    path: Path,
    source: WeightsSource,
    convert: Callable[[Path], State],
    accepted: str = "",
) -> dict[str, object]:
    """Check a published file, convert it, and put the copy and its record into the weights folder; returns the record.

    Raises EncoderError if the licence was not accepted, the digest differs, or the tensors do not fit.
    """
    if source.terms != "open" and accepted != source.licence:
        said = f"got {accepted!r}" if accepted else "which was not given"
        raise EncoderError(
            f"weights: {source.name} comes under {source.terms} terms ({source.licence}; see {source.page}). Using it "
            f"needs your explicit word, {said}: add --accept-licence {source.licence}."
        )
    published_sha256 = check_published(path, source)
    state = convert(path)
    record: dict[str, object] = {
        "version": RECORD_VERSION,
        "name": source.name,
        "content_sha256": digest_state(state),
        "published_sha256": published_sha256,
        "digest_was_published": bool(source.sha256),
        "url": source.url or source.page,
        "licence": source.licence,
        "accepted_licence": accepted,
        "n_tensors": len(state),
    }
    target = weights_path(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.with_suffix(".json").exists() and not _holds(target, record):
        raise EncoderError(
            f"weights: {str(target)!r} is where the converted copy goes, and holds a file that did not come in by "
            "`featbank weights`. Move it to another folder; if it is the published one, add it from there."
        )
    # The record comes last: a file without one is not used.
    with replacing(target, "weights") as scratch:
        save_file(state, scratch)
    write_file(target.with_suffix(".json"), json.dumps(record, indent=2, sort_keys=True) + "\n", "weights")
    return record


def _holds(path: Path, record: Mapping[str, object]) -> bool:
    """Tell whether a file has the recorded tensors, as one has whose record a kill forestalled."""
    try:
        return digest_state(load_file(path)) == record["content_sha256"]
    except (SafetensorError, OSError):
        return False


def load_stored(source: WeightsSource, digest: str = "") -> State:
    """Load the converted copy and compare it with its record, or with the digest that the caller relies on.

    Raises EncoderSetupError if it is not there, cannot be read, or its tensors are not the recorded
    ones.
    """
    path, record = weights_path(source), read_record(source)
    if record is None or not path.is_file():
        raise EncoderSetupError(describe_missing([source]))
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise EncoderSetupError(
            f"weights: {str(path)!r} cannot be read ({error}). Run `{source.command}` again."
        ) from error
    found = digest_state(state)
    wanted = digest or str(record["content_sha256"])
    if found != wanted:
        raise EncoderSetupError(
            f"weights: the tensors of {str(path)!r} must have the digest {wanted}, got {found}. The "
            f"file was changed or damaged after it came in; delete it and run `{source.command}` again."
        )
    return state


def image_state(
    blueprint: Blueprint, state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> State:
    """Pick the image network's tensors out of a stored state."""
    prefix = "visual." if blueprint.text_model else ""
    picked = {key: state[prefix + key] for key in expected if prefix + key in state}
    return match_state(blueprint.base, picked, expected)
