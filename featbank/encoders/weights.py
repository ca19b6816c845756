"""Where weights lie, what is known of their files, and which are missing; imports no deep-learning library.

Nothing here opens a connection. A weights file enters the folder by ``featbank weights fetch`` or
``featbank weights add``, which check it, convert it once to safetensors and write a record beside it; a
network is only ever built from a file with a record.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from featbank.encoders.spec import parse_encoder_name
from featbank.errors import EncoderError

WEIGHTS_VARIABLE: Final = "FEATBANK_WEIGHTS"
RECORD_VERSION: Final = 1
TERMS: Final = ("open", "restricted", "unstated")
"""``open`` permits commercial use; ``restricted`` does not, or sets own terms; ``unstated`` names no licence."""

_SOURCES: Final = "featbank.encoders.networks.catalogue"
NETWORK_FAMILIES: Final = ("timm", "open_clip", "torchvision", "checkpoint")


@dataclass(frozen=True)
class WeightsSource:
    """What is published about one weights file.

    Attributes
    ----------
    name : str
        The encoder without options, for example ``"checkpoint:arniqa"``.
    url, page : str
        Direct address, empty where a person has to fetch the file, and where the publisher describes it.
    licence, terms : str
        As the publisher names it, and whether the user must accept it by name first, see `TERMS`.
    sha256 : str
        Published digest, 64 digits or a published beginning of them; empty where none is.
    size_bytes : int
        Published size, 0 where none is.
    package : (requirement, file) or None
        A package of the package index that carries the same file, as ``NAME==VERSION``, and its path in the wheel.
    """

    name: str
    url: str
    page: str
    licence: str
    terms: str
    sha256: str = ""
    size_bytes: int = 0
    package: Sequence[str] | None = None

    @property
    def filename(self) -> str:
        """Path below the weights folder."""
        family, _, model = self.name.partition(":")
        return f"{family}/{re.sub(r'[^A-Za-z0-9._+-]', '--', model)}.safetensors"

    @property
    def command(self) -> str:
        """The command that brings the file here."""
        word = "" if self.terms == "open" else f" --accept-licence {self.licence}"
        if self.url or self.package:
            return f"featbank weights fetch {self.name}{word}"
        return f"featbank weights add {self.name} FILE{word}"

    @property
    def origin(self) -> str:
        """Where the file comes from, in words: a package, an address or a page."""
        places = [f"the package {self.package[0]}"] if self.package else []
        return " or ".join(places + [self.url][: bool(self.url)]) or self.page


def weights_folder() -> Path:
    """Return the folder named by ``FEATBANK_WEIGHTS``, else ``featbank/weights`` in the user's cache."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "featbank" / "weights"


def weights_path(source: WeightsSource) -> Path:
    """Return where the converted file of a source lies, or would lie."""
    return weights_folder() / source.filename


def read_record(source: WeightsSource) -> dict[str, Any] | None:
    """Return what was recorded when the file came in, or None if nothing was.

    Raises EncoderError if the record cannot be read: without it the weights cannot be trusted.
    """
    path = weights_path(source).with_suffix(".json")
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"weights: the record {str(path)!r} cannot be read ({error}). Delete it and the file of the same name, "
            f"then run `{source.command}`."
        ) from error
    if not isinstance(record, dict) or record.get("version") != RECORD_VERSION:
        raise EncoderError(
            f"weights: the record {str(path)!r} is not of version {RECORD_VERSION}. Delete it and the file of the "
            f"same name, then run `{source.command}`."
        )
    return record


def is_present(source: WeightsSource) -> bool:
    """Tell whether the converted file and its record are in the folder."""
    return weights_path(source).is_file() and read_record(source) is not None


def content_digest(source: WeightsSource) -> str:
    """Return the digest of the tensors that a source gave; the file itself may lie on another machine.

    Raises EncoderError if nothing is recorded here.
    """
    record = read_record(source)
    if record is None:
        raise EncoderError(describe_missing([source]))
    return str(record["content_sha256"])


def find_sources(name: str) -> tuple[WeightsSource, ...]:
    """Return the weights files that an encoder needs; none for weight-free and random ones.

    Raises
    ------
    EncoderError
        If the name breaks the grammar, or the family's library is not installed.
    UnknownNameError
        If the family does not know the model.
    """
    parsed = parse_encoder_name(name) if name.partition(":")[0] in NETWORK_FAMILIES else None
    if parsed is None or parsed.seed is not None:
        return ()
    # Imported by name, as the registry does: a checkpoint's sheet is plain facts, other families ask their library.
    sources: tuple[WeightsSource, ...] = import_module(_SOURCES).sources_of(parsed)
    return sources


def has_random_weights(name: str) -> bool:
    """Tell whether an encoder name asks for random weights, so that its features mean nothing."""
    return name.partition(":")[0] in NETWORK_FAMILIES and parse_encoder_name(name).seed is not None


def random_weights_note(bands: Iterable[str]) -> str:
    """Word what every result of random weights must say.

    Parameters
    ----------
    bands : iterable of str
        Names of the bands; none gives an empty note.
    """
    names = ", ".join(bands)
    if not names:
        return ""
    return (
        f"RANDOM WEIGHTS in {names}: asked for by ?random to try the chain. These features mean nothing, and no score "
        "made with them does."
    )


def missing_weights(names: Iterable[str]) -> list[WeightsSource]:
    """Return the weights files of encoders that are not in the folder, each once; raises as `find_sources`."""
    sources = {source.name: source for name in names for source in find_sources(name)}
    return [source for source in sources.values() if not is_present(source)]


def check_weights(names: Iterable[str]) -> None:
    """Refuse to start with weights missing, naming all of them at once.

    Raises
    ------
    EncoderError
        If a file is missing; the message gives source, licence, target and command for each.
    """
    missing = missing_weights(names)
    if missing:
        raise EncoderError(describe_missing(missing))


def describe_missing(missing: list[WeightsSource]) -> str:
    """Write the message for missing weights files."""
    files = "1 weights file is" if len(missing) == 1 else f"{len(missing)} weights files are"
    lines = [f"weights: {files} missing, nothing was computed. featbank never downloads on its own; run:"]
    for source in missing:
        lines += [
            f"  {source.command}",
            f"      from     {source.origin}",
            f"      licence  {source.licence}"
            + ("" if source.terms == "open" else f" ({source.terms} terms)"),
            f"      to       {weights_path(source)}",
        ]
    lines.append(
        "A file fetched by other means is taken in with `featbank weights add NAME FILE`. To try a recipe without "
        "weights, append ?random=0 to its encoders: the features then mean nothing and every result says so."
    )
    return "\n".join(lines)
