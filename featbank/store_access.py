"""Opens object stores through fsspec and turns what they refuse into sentences; imports fsspec only for a URL.

fsspec reaches many kinds of stores (S3, Google, Azure, a memory for tests), each by a library of its own with
errors of its own. What comes out here is FileNotFoundError or a `StoreError` that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from featbank.errors import FeatbankError, StoreError

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
    """Return the fsspec file system behind a URL; fsspec itself keeps one for each store and process.

    Raises
    ------
    StoreError
        If fsspec or the store's own library is not installed, or no store goes by that scheme.
    """
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
    """Let what a store raises come out as FileNotFoundError or StoreError.

    Parameters
    ----------
    url : str
        What is asked for, for the message.
    is_missing_possible : bool
        Whether "not found" is an answer; when writing it means that there is no such bucket.
    """
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
