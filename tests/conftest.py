"""What every test lives under: one BLAS thread, no network, no writing outside the temporary folder."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from featbank.remote import open_store

# Before numpy is imported by any test: small matrices on shared machines are slower with more threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

settings.register_profile("quick", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("FEATBANK_HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any test that opens a connection beyond this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family == socket.AF_UNIX or (
            isinstance(address, tuple) and address[0] in {"127.0.0.1", "::1"}
        ):
            return connect(self, address)
        raise OSError(f"tests must not use the network, got a connection to {address!r}")

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def memory_url() -> Iterator[str]:
    """URL of an empty place in fsspec's store in memory, which stands for any store inside one process."""
    pytest.importorskip("fsspec")
    place = f"memory://{uuid4().hex}/place"
    yield place
    store = open_store(place)
    if store.exists(place):
        store.rm(place, recursive=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real metadata and photographs named by FEATBANK_TEST_DATA; the test is skipped without it."""
    folder = os.environ.get("FEATBANK_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set FEATBANK_TEST_DATA to its folder")
    return Path(folder)
