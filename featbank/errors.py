"""The family of exceptions: every one says who, what was expected, what was received, and the cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class FeatbankError(Exception):
    """Base of all errors that a user can cause or cure; the command line shows its text alone."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument; a message is meant to be read as it is.
        return redact(str(self.args[0])) if self.args else self.__class__.__name__


# A path object spells `s3://user:password@host` with a single slash.
_USER = re.compile(r"""(?:(?<=://)|(?<=\w\w:/)(?!/))(?:[^\s/@"'?#]+|[^\s/@:"']*:[^\s@"']*)@""")
_SECRET = re.compile(
    r"""([?&;][^\s=&"']*(?:auth|credential|key|pass|pwd|secret|sig|token)[^\s=&"']*=)[^\s&;"'#]+""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text without the users, passwords and tokens of the URLs in it, for messages, receipts and reports.

    Examples
    --------
    >>> from featbank.errors import redact
    >>> redact("postgresql://me:secret@host/db and https://host/a?token=abc&n=1")
    'postgresql://***@host/db and https://host/a?token=***&n=1'
    """
    return _SECRET.sub(r"\1***", _USER.sub("***@", text)) if ":/" in text else text


class ImageError(FeatbankError, ValueError):
    """An image that cannot be turned into pixels.

    Parameters
    ----------
    reason : str
        One word for counting, such as ``truncated``, ``empty``, ``too-large``, ``not-an-image``.
    digest : str, default=""
        SHA-256 of the bytes that were refused; empty where none could be read.
    """

    def __init__(self, reason: str, message: str, digest: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.digest = digest

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        # All arguments: the default would hand only the message to the constructor in another process.
        return (type(self), (self.reason, str(self.args[0]), self.digest))


class DatasetError(FeatbankError, ValueError):
    """A dataset whose files contradict what its layout promises."""


class DatasetNotFoundError(FeatbankError, FileNotFoundError):
    """No dataset of a known layout at the given place."""


class UnknownNameError(FeatbankError, KeyError):
    """A name that no registry knows; the message lists near names."""


class ViewError(FeatbankError, ValueError):
    """A view that cannot be parsed, or cannot be taken from an image."""


class EncoderError(FeatbankError, ValueError):
    """An encoder that cannot be built, or a view it does not accept."""


class EncoderSetupError(EncoderError):
    """An encoder that cannot run here at all, whatever the image: damaged weights, a device that is not there."""


class BankError(FeatbankError, OSError):
    """A bank that cannot be read or written; its finished shards stay intact."""


class OutputError(FeatbankError, OSError):
    """A file or folder that cannot be written, or that holds what featbank did not write; it is as it was before."""


class StoreError(FeatbankError, OSError):
    """An object store that cannot be reached, refuses access, or lacks its library or its bucket.

    Built by `featbank.remote.store_error`.

    Attributes
    ----------
    reason, cure : str
        The parts of the message: what is wrong, and what to do.
    is_refusal : bool
        Whether access to this one object was refused, which says nothing of the others.
    """

    reason: str
    cure: str
    is_refusal: bool


class ClusterError(FeatbankError, OSError):
    """A cluster that cannot be reached or used; what was finished is in the bank."""


class MissingFeaturesError(FeatbankError, LookupError):
    """Features that the bank does not hold; the message gives the command that computes them."""


class RecipeError(FeatbankError, ValueError):
    """A recipe that breaks the schema."""


class RunError(FeatbankError, ValueError):
    """A run that cannot be carried out, or a run folder that cannot be read."""


def first_few(items: Sequence[object], n_shown: int = 5) -> str:
    """Name the first of several things for a message and say how many more there are: ``a, b and 38 more``."""
    text = ", ".join(str(item) for item in items[:n_shown])
    return text if len(items) <= n_shown else f"{text} and {len(items) - n_shown:,} more"


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str) -> UnknownNameError:
    """Build the error for a name that is not registered.

    Parameters
    ----------
    kind : str
        What was looked up, for example ``"encoder"``.
    name : str
        The name that was received.
    known : iterable of str
        All registered names.
    listing : str
        The command that lists them, for example ``"featbank list encoders"``.

    Returns
    -------
    UnknownNameError
        Ready to be raised; names up to three near spellings.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UnknownNameError(
        f"{kind} must be one of the {len(names)} known ones, got {name!r}.{hint} List them all with `{listing}`."
    )
