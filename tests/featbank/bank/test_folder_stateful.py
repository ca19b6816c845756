"""A feature folder behaves like a dictionary under any sequence of appends, compactions and reopenings."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from featbank.bank import Bank, FeatureFolder, upkeep
from featbank.bank.upkeep import AGREEMENT
from featbank.errors import MissingFeaturesError
from tests.support.bank_rows import image_key

N_FEATURES = 3

numbers = st.integers(0, 30)
values = st.floats(-4, 4, width=16)  # is the same number in both stored types
rows = st.dictionaries(
    numbers, st.lists(values, min_size=N_FEATURES, max_size=N_FEATURES), min_size=1, max_size=9
)


class BankMachine(RuleBasedStateMachine):
    """The model holds for each image what each shard says of it; the smallest shard name is right."""

    @initialize(dtype=st.sampled_from(["float32", "float16"]))
    def make(self, dtype: str) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.dtype = dtype
        self.model: dict[int, dict[str, list[float]]] = {}
        self.shard_rows = upkeep.SHARD_ROWS
        upkeep.SHARD_ROWS = 8
        self.handles = [self.fresh(), self.fresh()]  # the second often lags behind

    def fresh(self) -> FeatureFolder:
        return Bank(self.root).open({"dtype": self.dtype}, N_FEATURES, "model", self.dtype)

    def served(self) -> dict[int, list[float]]:
        return {number: shards[min(shards)] for number, shards in self.model.items()}

    @rule(batch=rows, which=st.integers(0, 1))
    def append(self, batch: dict[int, list[float]], which: int) -> None:
        keys = [image_key(number) for number in batch]
        name = self.handles[which].append(keys, np.array(list(batch.values()))).name
        for number, vector in batch.items():
            self.model.setdefault(number, {})[name] = vector

    @rule(which=st.integers(0, 1))
    def compact(self, which: int) -> None:
        served, folder = self.served(), self.handles[which]
        folder.compact()
        # Another reader tells in which shard a row is now.
        self.model = {}
        numbers_by_key = {bytes.fromhex(image_key(number)): number for number in served}
        for name in folder.shard_names():
            for key in pd.read_feather(folder.path / name)["key"]:
                number = numbers_by_key[key]
                assert number not in self.model
                self.model[number] = {name: served[number]}
        assert self.model.keys() == served.keys()

    @rule(which=st.integers(0, 1), how=st.sampled_from(["open", "pickle"]))
    def reopen(self, which: int, how: str) -> None:
        self.handles[which] = (
            self.fresh() if how == "open" else pickle.loads(pickle.dumps(self.handles[which]))
        )

    @rule()
    def move(self) -> None:
        new = Path(tempfile.mkdtemp()) / "moved"
        shutil.move(self.root, new)
        self.root = new
        self.handles = [self.fresh(), self.fresh()]

    @rule(asked=st.lists(numbers, max_size=12), which=st.integers(0, 1))
    def read(self, asked: list[int], which: int) -> None:
        folder, served = self.handles[which], self.served()
        keys = [image_key(number) for number in asked]
        absent = list(dict.fromkeys(image_key(number) for number in asked if number not in served))
        assert folder.missing(keys) == absent
        try:
            found = folder.read(keys)
        except MissingFeaturesError:
            assert absent
        else:
            assert not absent
            expected = np.array([served[number] for number in asked], dtype=self.dtype).reshape(
                -1, N_FEATURES
            )
            assert found.tobytes() == expected.astype(np.float32).tobytes()

    @rule()
    def verify(self) -> None:
        disagree = False
        for shards in self.model.values():
            first = np.array(shards[min(shards)])
            for vector in shards.values():
                size = max(np.abs(first).max(), np.abs(vector).max()) or 1.0
                disagree |= bool(np.abs(first - vector).max() / size > AGREEMENT[self.dtype])
        kinds = {problem.kind for problem in self.handles[0].verify()}
        assert kinds == ({"disagreement"} if disagree else set())

    @invariant()
    def both_handles_know_the_same_keys(self) -> None:
        if hasattr(self, "model"):
            expected = {image_key(number) for number in self.model}
            assert [folder.keys() for folder in self.handles] == [expected, expected]
            assert len(self.handles[1].keys()) == len(expected)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            upkeep.SHARD_ROWS = self.shard_rows
            shutil.rmtree(self.root)


TestBankMachine = BankMachine.TestCase
TestBankMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
