"""Makes a cluster joblib's active backend for the time of a command, and refuses workers of other versions.

Dask has a backend of our own (`featbank.dask_backend`). Ray and Spark take the same way with the backends that they
register with joblib. Workers are compared with this machine by the versions of the libraries that compute and by
the source of the packages that the caller names.
"""

from __future__ import annotations

import hashlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joblib import Parallel, delayed, effective_n_jobs, parallel_config

from featbank import __version__
from featbank.cluster import check_cluster, connect
from featbank.dask_backend import DaskBackend, processor_kind
from featbank.errors import ClusterError

LIBRARIES = ("numpy", "scipy", "scikit-learn")
"""Beside featbank: what the numbers of a fold depend on."""

SCHEMES = ("dask", "ray", "spark")

Stamp = tuple[tuple[str, str], ...]
"""Names with versions or digests."""


@dataclass(frozen=True)
class ClusterUse:
    """A cluster that computes for this process.

    Attributes
    ----------
    address : str
        As the user wrote it.
    hosts, processors : Counter of str
        How many tasks each machine, and each kind of processor, has computed so far.
    """

    address: str
    hosts: Counter[str]
    processors: Counter[str]

    def describe(self) -> dict[str, Any]:
        """Return what a receipt says of it: where how many tasks were computed."""
        kinds = sorted(set(self.processors) - {processor_kind()})
        found: dict[str, Any] = {"address": self.address, "tasks_by_host": dict(sorted(self.hosts.items()))}
        if kinds:
            found["note"] = (
                f"Computed on processors of another kind ({', '.join(kinds)}) than this machine's ({processor_kind()}) "
                "as well: the last digits may differ from those of one machine."
            )
        return found


def check_address(address: str) -> str:
    """Return the scheme of a cluster's address.

    Parameters
    ----------
    address : str
        Such as ``dask://10.0.0.5:8786``.

    Returns
    -------
    {"dask", "ray", "spark"}

    Raises
    ------
    ClusterError
        If it is spelt otherwise.

    Examples
    --------
    >>> from featbank.on_cluster import check_address
    >>> check_address("ray://head:10001")
    'ray'
    """
    parts = urlsplit(address)
    if parts.scheme in SCHEMES[1:]:
        check_cluster(f"dask{address[len(parts.scheme) :]}")
    else:
        check_cluster(address)
    return parts.scheme


@contextmanager
def on_cluster(address: str | None, packages: Sequence[str] = ()) -> Iterator[ClusterUse | None]:
    """Let the workers of a cluster do joblib's tasks for the time of a context.

    Parameters
    ----------
    address : str or None
        ``dask://HOST:PORT`` of a scheduler, ``ray://HOST:PORT`` of a Ray client server, or ``spark://HOST:PORT`` of a
        Spark master; None leaves all as it is.
    packages : sequence of str
        Packages whose source must be the same on the workers.

    Yields
    ------
    ClusterUse or None

    Raises
    ------
    ClusterError
        If the address is misspelt, the library for it is not installed, nothing answers there, or a worker has other
        versions. Inside the context, if the cluster is lost, or a task ends each worker that takes it.
    """
    if address is None:
        yield None
        return
    scheme = check_address(address)
    check = partial(check_worker, make_stamp(tuple(packages)), tuple(packages))
    if scheme == "dask":
        with connect(address) as client:
            backend = DaskBackend(client, address, check)
            try:
                with parallel_config(backend=backend):
                    yield ClusterUse(address, backend.hosts, backend.processors)
            finally:
                backend.close()
        return
    with _registered(scheme, address), parallel_config(backend=scheme):
        # These backends say nothing of who did a task, so the workers are asked before.
        looked = Parallel(n_jobs=-1, batch_size=1)(
            delayed(_look)(check) for _ in range(2 * effective_n_jobs(-1))
        )
        hosts, processors = zip(*looked, strict=True)
        yield ClusterUse(address, Counter(hosts), Counter(processors))


@lru_cache(maxsize=8)
def make_stamp(packages: tuple[str, ...]) -> Stamp:
    """List what decides the numbers that this process would compute.

    Parameters
    ----------
    packages : tuple of str
        Installed packages whose source is digested.

    Returns
    -------
    tuple of (name, version or digest)
    """
    versions = [("featbank", __version__)]
    for name in LIBRARIES:
        try:
            versions.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            versions.append((name, "none"))
    return (*versions, *((f"the code of {name}", _digest_source(name)) for name in packages))


def check_worker(expected: Stamp, packages: tuple[str, ...]) -> None:
    """Refuse to compute where versions differ from those of the machine that asks.

    Raises
    ------
    ClusterError
        If they differ; the message names what and where.
    """
    found = dict(make_stamp(packages))
    other = [
        f"{name} {found.get(name)} instead of {want}" for name, want in expected if found.get(name) != want
    ]
    if other:
        raise ClusterError(
            f"cluster: the worker on {socket.gethostname()} has {', '.join(other)}, so that its numbers could differ. "
            "Install the same versions on all machines and start the workers again."
        )


def _look(check: Callable[[], None]) -> tuple[str, str]:
    check()
    return socket.gethostname(), processor_kind()


def _digest_source(package: str) -> str:
    spec = util.find_spec(package)
    digest = hashlib.sha256()
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _registered(scheme: str, address: str) -> Iterator[None]:
    """Connect to Ray or Spark and register its joblib backend."""
    module, package = {"ray": ("ray", "ray"), "spark": ("joblibspark", "joblibspark pyspark")}[scheme]
    try:
        library = import_module(module)
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"cluster: {address} needs the package {module!r}, which is not installed. Install it with "
            f"pip install {package}."
        ) from error
    try:
        if scheme == "ray":
            library.init(address=address, log_to_driver=False)
            import_module("ray.util.joblib").register_ray()
        else:
            session = import_module("pyspark.sql").SparkSession.builder.master(address).getOrCreate()
            library.register_spark()
    except Exception as error:
        raise ClusterError(
            f"cluster: {address} cannot be used ({type(error).__name__}: {error}). Is the address right, and does the "
            f"cluster run?"
        ) from error
    try:
        yield
    finally:
        if scheme == "ray":
            library.shutdown()
        else:
            session.stop()
