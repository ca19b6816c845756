"""Names of files that lie in a store instead of on a disk: a URL that answers as a Path does.

Whoever takes a place from a user calls `as_place` and goes on with a `Path` or a `RemotePath`, of which both can
join names, say their own, tell what is there, and read. A store knows no folders and no half-written objects:
an object appears whole under its name, by one request, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from featbank.atomic import replacing
from featbank.digest import digest_file
from featbank.errors import FeatbankError, StoreError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# Below this number of names in one folder each is asked for; above it the folder is listed.
_LIST_FROM = 8


@dataclass(frozen=True)
class RemoteStatus:
    """What a store says of one object."""

    # st_mode, st_size: As of a file or folder on a disk; the size in bytes
    st_mode: int
    st_size: int
    # The store's own mark of the content (ETag, generation or checksum); empty where it keeps none
    identity: str = ""


@dataclass(frozen=True, order=True)
class RemotePath:
    """The place of an object, or of all objects whose names begin so; as far as it goes, what `Path` is to a file.

    Everything that asks the store raises FileNotFoundError where there is no such object, and StoreError where
    the store cannot be reached, refuses, or lacks its library.

    Parameters
    ----------
    scheme : str
        Such as ``s3``.
    pure : PurePosixPath
        The rest of the URL, bucket or host first.
    """

    scheme: str
    pure: PurePosixPath

    @classmethod
    def parse(cls, url: str) -> RemotePath:
        """Read a URL; raises StoreError if it names no bucket."""
        scheme, _, rest = url.partition("://")
        if not rest.strip("/"):
            raise store_error(url, "names no bucket", f"Write it as {scheme}://bucket/name.", errno.EINVAL)
        return cls(scheme.lower(), PurePosixPath(rest.strip("/")))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.pure}"

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return RemotePath(self.scheme, PurePosixPath(posixpath.normpath(self.pure / name)))

    @property
    def name(self) -> str:
        """Last part."""
        return self.pure.name

    @property
    def stem(self) -> str:
        """Last part without its ending."""
        return self.pure.stem

    @property
    def suffix(self) -> str:
        """Ending of the last part, with its point."""
        return self.pure.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """Bucket and all parts."""
        return self.pure.parts

    @property
    def parent(self) -> RemotePath:
        """The place that holds this one."""
        return RemotePath(self.scheme, self.pure.parent)

    @property
    def parents(self) -> list[RemotePath]:
        """All places that hold this one, nearest first, up to the bucket."""
        return [RemotePath(self.scheme, pure) for pure in self.pure.parents if pure.parts]

    def as_posix(self) -> str:
        """Return the URL."""
        return str(self)

    def absolute(self) -> RemotePath:
        """Return itself: a URL is never relative."""
        return self

    def resolve(self) -> RemotePath:
        """Return itself: a store has no links."""
        return self

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """Return the part below another place."""
        return self.pure.relative_to(other.pure)

    def status(self) -> RemoteStatus | None:
        """Ask the store once; None where there is nothing."""
        try:
            with plain_errors(str(self)):
                return _status(open_store(str(self)).info(str(self)))
        except FileNotFoundError:
            return None

    def stat(self) -> RemoteStatus:
        """Ask the store once."""
        found = self.status()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        return found

    def exists(self) -> bool:
        """Tell whether there is such an object, or one whose name begins with this one and a slash."""
        return self.status() is not None

    def is_file(self) -> bool:
        """Tell whether there is such an object."""
        found = self.status()
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_dir(self) -> bool:
        """Tell whether there is an object whose name begins with this one and a slash."""
        found = self.status()
        return found is not None and stat.S_ISDIR(found.st_mode)

    def scan(self) -> list[RemoteEntry]:
        """List what lies directly here, by name; empty where there is nothing."""
        url = str(self)
        try:
            with plain_errors(url):
                found = open_store(url).ls(url, detail=True)
        except FileNotFoundError:
            return []
        names = ((PurePosixPath(info["name"].strip("/")), info) for info in found)
        # Some stores list an object as its own and only member, or keep an empty object as the folder's mark.
        entries = [
            RemoteEntry(self / name.name, _status(info)) for name, info in names if name.parent == self.pure
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def open(self, mode: str = "rb", *, read_ahead: bool = True) -> StoreFile:
        """Open the object for reading in pieces; should it change meanwhile, S3 refuses to go on."""
        options = {} if read_ahead else {"cache_type": "none"}
        with plain_errors(str(self)):
            return StoreFile(str(self), open_store(str(self)).open(str(self), mode, **options))

    def read_bytes(self) -> bytes:
        """Read the whole object."""
        with plain_errors(str(self)):
            data: bytes = open_store(str(self)).cat_file(str(self))
            return data

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Store the object whole, in place of an earlier one of that name."""
        with plain_errors(str(self), is_missing_possible=False):
            open_store(str(self)).pipe_file(str(self), bytes(data))

    def unlink(self) -> None:
        """Remove the object; some stores do not tell whether there was one."""
        with plain_errors(str(self)):
            open_store(str(self)).rm_file(str(self))

    def digest(self) -> str:
        """Return the SHA-256 of the object's bytes as 64 hexadecimal digits, read in pieces."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


Place: TypeAlias = Path | RemotePath
"""Where something lies: on a disk or in a store."""


@dataclass(frozen=True)
class RemoteEntry:
    """One line of a listing; answers as ``os.DirEntry`` does."""

    place: RemotePath
    status: RemoteStatus

    @property
    def name(self) -> str:
        """Last part of its place."""
        return self.place.name

    def is_dir(self) -> bool:
        """Tell whether other objects lie below it."""
        return stat.S_ISDIR(self.status.st_mode)

    def is_file(self) -> bool:
        """Tell whether it is an object."""
        return stat.S_ISREG(self.status.st_mode)

    def is_symlink(self) -> bool:
        """Return False: a store has no links."""
        return False

    def stat(self) -> RemoteStatus:
        """Return what the listing said of it."""
        return self.status


def is_url(text: object) -> bool:
    """Tell by the spelling whether a place lies in a store; ``file://`` does not."""
    return (
        isinstance(text, str) and "://" in text and bool(_URL.match(text)) and text[:7].lower() != "file://"
    )


MAX_PHOTO_BYTES = 1 << 30
"""Largest photo that is read, in bytes: an uncompressed one fits, a disk image does not."""


def check_regular(place: Place, max_bytes: int, error: type[FeatbankError]) -> None:
    """Refuse what cannot be read as a whole, before it is opened: a pipe would wait, a device might never end."""
    try:
        status = place.stat()
    except ValueError as cause:  # a zero byte in the path
        raise error(f"{str(place)!r} names no file: {cause}.") from cause
    except PermissionError as cause:
        raise error(f"{place} cannot be read: {cause.strerror}.") from cause
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{place} is a folder, pipe, socket or device, not a file. Give the path of a file.")
    if status.st_size == 0:  # so are those of /proc, which may wait for ever
        raise error(f"{place} is empty: the file has zero bytes.")
    if status.st_size > max_bytes:
        raise error(f"{place} has {status.st_size:,} bytes; of such a file at most {max_bytes:,} are read.")


def read_regular(place: Place, max_bytes: int, error: type[FeatbankError]) -> bytes:
    """Read a whole file, after `check_regular`."""
    check_regular(place, max_bytes, error)
    try:
        with place.open("rb") as file:
            return file.read(max_bytes)
    except StoreError:
        raise
    except OSError as cause:
        raise error(f"{place} cannot be read: {cause.strerror or cause}.") from cause


def as_place(place: str | Place) -> Place:
    """Return a path on a disk, or in a store where a URL is given; ``file:///folder`` is the folder itself."""
    if not isinstance(place, str):
        return place
    if is_url(place):
        return RemotePath.parse(place)
    return Path(unquote(urlsplit(place).path)) if place[:7].lower() == "file://" else Path(place)


def utf8_name(path: str | Place) -> str:
    r"""Spell a path in valid UTF-8, for names, messages and files: bytes that are none are written as ``\xfc``."""
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:  # Python holds such bytes as lone surrogates, which no text file may hold
        return text.encode(errors="backslashreplace").decode().replace("\\udc", "\\x")
    return text


def digest_at(place: str | Place) -> str:
    """Return the SHA-256 of a file or an object as 64 hexadecimal digits."""
    found = as_place(place)
    return found.digest() if isinstance(found, RemotePath) else digest_file(found)


def replace_file(place: Place, *parts: bytes | memoryview) -> None:
    """Give a small file other bytes in one step; for caches, since of two writers at once one is lost."""
    if isinstance(place, RemotePath):
        place.write_bytes(b"".join(parts))
        return
    with replacing(place, "cache") as scratch, scratch.open("wb") as file:
        file.writelines(parts)


def find_statuses(urls: Sequence[str]) -> dict[str, RemoteStatus]:
    """Look many objects up, by listing the folders in which several lie."""
    folders: dict[RemotePath, list[str]] = {}
    for url in urls:
        folders.setdefault(RemotePath.parse(url).parent, []).append(url)
    found: dict[str, RemoteStatus] = {}
    for folder, members in folders.items():
        if len(members) < _LIST_FROM:
            looked_up = {url: RemotePath.parse(url).status() for url in members}
        else:
            listed = {entry.place: entry.status for entry in folder.scan()}
            looked_up = {url: listed.get(RemotePath.parse(url)) for url in members}
        found.update({url: status for url, status in looked_up.items() if status is not None})
    return found


def _status(info: dict[str, Any]) -> RemoteStatus:
    kind = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
    marks = (info.get(name) for name in ("ETag", "etag", "generation", "md5Hash", "checksum"))
    return RemoteStatus(kind, int(info.get("size") or 0), str(next(filter(None, marks), "")))


S3_SCHEMES = frozenset({"s3", "s3a"})
_INSTALL = {
    **dict.fromkeys(S3_SCHEMES, "'featbank[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
}

_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 4, "mode": "standard"}}
"""Each request to S3 is tried this often with growing pauses, then the command ends with a sentence."""

_REFUSED = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoCredentialsError",
        "PartialCredentialsError",
        "PermissionError",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRetrievalError",
        "403",
    }
)
_UNREACHABLE = frozenset(
    {
        "ClientConnectorError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "FSTimeoutError",
        "HTTPClientError",
        "ProxyConnectionError",
        "ReadTimeoutError",
        "ServerDisconnectedError",
    }
)


def open_store(url: str) -> Any:  # noqa: ANN401 - of an optional package
    """Return the fsspec file system behind a URL; fsspec itself keeps one for each store and process."""
    scheme = url.partition("://")[0]
    try:
        fsspec = import_module("fsspec")
        options: dict[str, Any] = {"use_listings_cache": False}  # a neighbour's files must be seen at once
        if scheme in S3_SCHEMES:
            own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
            options["config_kwargs"] = _S3_CONFIG | own
        return fsspec.core.url_to_fs(url, **options)[0]
    except ImportError as error:
        package = _INSTALL.get(scheme)
        cure = f"Install it with pip install {package}." if package else f"{error}."
        raise store_error(url, f"the library for {scheme}:// is not installed", cure, errno.ENOSYS) from error
    except Exception as error:
        raise _explain(url, error) from error


def store_error(url: str, reason: str, cure: str, number: int, *, is_refusal: bool = False) -> StoreError:
    """Build the error of a store, ready to be raised; `StoreError` says what its parts are."""
    result = StoreError(f"{url}: {reason}. {cure}")
    result.reason, result.cure, result.is_refusal = reason, cure, is_refusal
    result.errno = number
    return result


@contextlib.contextmanager
def plain_errors(url: str, *, is_missing_possible: bool = True) -> Iterator[None]:
    """Let what a store raises come out as FileNotFoundError or StoreError."""
    try:
        yield
    except FeatbankError:
        raise
    except FileNotFoundError as error:
        if is_missing_possible:
            raise FileNotFoundError(errno.ENOENT, "no such object", url) from error
        cure = "Check its name, or make it with the store's own tools."
        raise store_error(url, "there is no such bucket", cure, errno.ENODEV) from error
    except Exception as error:
        raise _explain(url, error) from error


class StoreFile(io.RawIOBase):
    """An object open for reading; what its store raises comes out as from `plain_errors`.

    Parameters
    ----------
    url : str
        For the messages.
    file : binary file
        As the store's own library opened it.

    Attributes
    ----------
    size : int
        In bytes.
    """

    def __init__(self, url: str, file: Any) -> None:  # noqa: ANN401 - of an optional package
        self._url, self._file = url, file
        self.size = int(file.size)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or all that are left."""
        with plain_errors(self._url):
            data: bytes = self._file.read(-1 if size is None else size)
            return data

    def readall(self) -> bytes:
        """Read all that are left."""
        return self.read()

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        """Read into a buffer as many bytes as it holds."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Say where."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the store's own file as well."""
        if not self.closed:
            self._file.close()
        super().close()


def _explain(url: str, error: Exception) -> StoreError:
    names = set(_names(error))
    text = f"{type(error).__name__}: {error}".rstrip(".: ")
    if names & _REFUSED:
        return store_error(
            url,
            f"the store refused access ({text})",
            "Check the credentials (for S3 the AWS_ variables or ~/.aws) and what they allow: a bank needs to list, "
            "read, write and delete, reading needs to list and read.",
            errno.EACCES,
            is_refusal=True,
        )
    if names & _UNREACHABLE or isinstance(error, ConnectionError | TimeoutError):
        return store_error(
            url,
            f"the store does not answer ({text})",
            "Check its address (for S3 AWS_ENDPOINT_URL) and the network, then run the same command again: it goes "
            "on where it stopped.",
            errno.ECONNREFUSED,
        )
    if isinstance(error, ValueError) and "Protocol not known" in text:
        scheme = url.partition("://")[0]
        return store_error(
            url,
            f"no kind of store is called {scheme}://",
            "Give a folder, or a URL such as s3://bucket/bank.",
            errno.EINVAL,
        )
    return store_error(url, text, "Check the store, then run the same command again.", errno.EIO)


def _names(error: BaseException | None) -> Iterator[str]:
    """Yield what an error and those behind it are called, by their classes and in the store's own codes."""
    while error is not None:
        yield from (base.__name__ for base in type(error).__mro__)
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            yield str(response.get("Error", {}).get("Code"))
        error = error.__cause__ or error.__context__
