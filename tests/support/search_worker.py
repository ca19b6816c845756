"""Processes of a study, for tests that kill them or run several at once.

``python -m tests.support.search_worker`` imports everything once, then forks a child for each one.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from featbank.search.space import Configuration, Evaluation, Evaluator, Space
from featbank.search.study import Finished, Plan, make_plan, open_storage, run_study, trials_frame
from tests.support.bank_worker import serve
from tests.support.search_study import SEARCH, study_parts

KINDS = {
    "exhaustive": ("srcc", "exhaustive", ""),
    "tpe": ("srcc", "sampled", SEARCH),
    "nsga2": ("srcc,gmacs", "sampled", SEARCH),
}

N_TRIALS = 44


class CountingEvaluator(Evaluator):
    """Counts what it evaluates; dies by SIGKILL in the middle of a given call."""

    n_calls_left = -1
    pause_s = 0.0

    def evaluate(self, configurations: Sequence[Configuration]) -> list[Evaluation]:
        self.counted = [*getattr(self, "counted", []), *configurations]
        time.sleep(self.pause_s)
        results = super().evaluate(configurations)
        if self.n_calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.n_calls_left -= 1
        return results


def study_of(kind: str) -> tuple[Space, CountingEvaluator, Plan]:
    """Space, evaluator and plan of a kind of study, always the same."""
    objectives, method, search = KINDS[kind]
    space, X, rows = study_parts(["a", "b", "c", "d", "g", "h"], search=search)
    return space, CountingEvaluator(space, X, rows, 1), make_plan(space, objectives, 7, N_TRIALS, method)


def work(folder: Path, kind: str, url: str | None, evaluator: CountingEvaluator) -> list[Finished]:
    """Work on the study in a folder or a database until it is complete."""
    space, _, plan = study_of(kind)
    return run_study(open_storage(url, folder), "study", space, evaluator, plan)


def _study(folder: str, kind: str, url: str, die_in_call: int, pause_s: float) -> None:
    """Work, and write what was found and done as JSON into ``<process id>.json``."""
    space, evaluator, _ = study_of(kind)
    evaluator.n_calls_left, evaluator.pause_s = die_in_call, pause_s
    finished = work(Path(folder), kind, url or None, evaluator)
    counted = [repr(configuration) for configuration in evaluator.counted]
    said = {"counted": counted, "trials": trials_frame(space, finished).to_csv()}
    (Path(folder) / f"{os.getpid()}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    importlib.import_module("optuna")
    serve({"study": _study})
