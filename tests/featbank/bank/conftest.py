"""Waiting for the disk at each of thousands of small shards would take most of the time of these tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the flush to the disk, but for the tests of it; processes started by tests do flush."""
    if "test_files" not in request.node.nodeid:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
