"""The students in this package: they keep every encoder's contract, and their bounds of size and cost."""

import zlib
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from featbank.commands.weights import COMMANDS
from featbank.encoders import Encoder, make_encoder
from featbank.encoders.student import (
    CARD_FILE,
    NETWORK_FILE,
    describe_student,
    read_network,
    shipped_students,
)
from featbank.feature import make_feature
from tests.support.encoder_contract import EncoderContract

MAX_BYTES = 5_000_000
"""Of all students in the wheel, which is compressed."""
MAX_GMACS = 2.0
"""Of all students together, on the views that they are meant for."""


@pytest.mark.parametrize("encoder", [f"featbank:{name}" for name in shipped_students()], indirect=True)
class TestShippedStudents(EncoderContract):
    sizes = ((64, 64), (66, 200))
    bad_size = (30, 64)
    tolerance = 1e-5

    @pytest.fixture
    def encoder(self, request: pytest.FixtureRequest) -> Encoder:
        return make_encoder(request.param)

    def assert_same(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        # Relative to the vector's size: a single feature near zero has no relative accuracy.
        assert np.linalg.norm(found - expected) <= self.tolerance * np.linalg.norm(expected)

    def test_declares_what_the_registry_lists(self, encoder: Encoder) -> None:
        from argparse import Namespace

        [row] = [
            row
            for row in COMMANDS["list"].run(Namespace(what="encoders")).document["encoders"]
            if row["name"] == encoder.spec.name
        ]
        assert row["columns"] == encoder.spec.n_features
        assert row["licence"] == encoder.spec.licence == "Apache-2.0"
        assert row["weights"] == encoder.spec.weights

    def test_its_graph_is_the_one_described(self, encoder: Encoder) -> None:
        facts = describe_student(encoder.spec.name.partition(":")[2])
        folder = resources.files("featbank.encoders") / "students" / facts.name
        assert len(read_network(facts)) == len((folder / NETWORK_FILE).read_bytes())

    def test_has_a_card(self, encoder: Encoder) -> None:
        name = encoder.spec.name.partition(":")[2]
        card = (resources.files("featbank.encoders") / "students" / name / CARD_FILE).read_text("utf-8")
        assert card.startswith(f"# {encoder.spec.name}\n")
        assert "| " in card


def test_they_are_small_and_cheap_together() -> None:
    assert set(shipped_students()) == {"mobile", "whole"}
    n_bytes = gmacs = 0
    for name in shipped_students():
        folder = resources.files("featbank.encoders") / "students" / name
        n_bytes += sum(len(zlib.compress(item.read_bytes())) for item in folder.iterdir())
        gmacs += make_feature(f"featbank:{name}", describe_student(name).view, "mean").gmacs()
    assert n_bytes <= MAX_BYTES
    assert 0 < gmacs <= MAX_GMACS
