"""One small set for all tests of the demo package."""

from pathlib import Path

import pytest

from tests.support.small_demo import small_demo


@pytest.fixture(scope="session")
def finished_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set of 20 photos; tests read it and never write into it."""
    return small_demo(tmp_path_factory.mktemp("demo") / "set", n_photos=20)
