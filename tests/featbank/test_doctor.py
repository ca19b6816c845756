"""featbank doctor: true facts, advice only where it is due, no traceback on a folder that cannot be written."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featbank.cli import main
from featbank.doctor import advise, examine, is_writable, render


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return examine(tmp_path_factory.mktemp("doctor") / "bank")


def test_the_facts_are_those_of_this_process(document: dict[str, Any]) -> None:
    assert document["libraries"]["numpy"] == np.__version__
    assert document["machine"]["usable_cores"] >= 1
    assert document["gemm_gflops"] > 0
    assert document["bank"] == {"folder": document["bank"]["folder"], "exists": False, "writable": True}
    assert document["problems"] == []
    text = render(document)
    assert np.__version__ in text
    assert "bank:" in text


def test_the_command_prints_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--bank", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bank"]["exists"]
    assert main(["doctor", "--bank", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("featbank ")


def test_a_bank_that_cannot_be_written_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert main(["doctor", "--bank", str(in_the_way / "bank")]) == 1
    assert "cannot be written" in capsys.readouterr().out


def test_writable_means_that_a_file_can_be_made(tmp_path: Path) -> None:
    assert is_writable(tmp_path / "not" / "yet" / "there")
    assert not list(tmp_path.iterdir())
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert not is_writable(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["machine"].update(avx512=True), "OPENBLAS_CORETYPE=SkylakeX"),
        (lambda d: d["blas"][0].update(threads=64), "64 threads on 4 usable cores"),
        (lambda d: d["blas"][0].update(threads=1), "held to one thread"),
        (lambda d: d["blas"].clear(), "no BLAS was recognised"),
        (lambda d: d["libraries"].update(numba=None), "featbank[numba]"),
        (lambda d: d["libraries"].update(timm=None), "lack timm"),
        (lambda d: d["weights"].update(files=0), "featbank weights list"),
    ],
)
def test_advice_is_given_where_it_is_due(document: dict[str, Any], change: Any, words: str) -> None:
    ideal = copy.deepcopy(document)
    ideal["machine"] |= {"avx512": False, "usable_cores": 4}
    ideal["blas"] = [
        {"used_by": "numpy", "name": "openblas", "version": "0.3", "kernels": "Haswell", "threads": 4}
    ]
    ideal["libraries"] = dict.fromkeys(ideal["libraries"], "1.0")
    ideal["weights"] |= {"files": 3}
    assert advise(ideal) == ([], [])
    assert render({**ideal, "problems": [], "advice": []}).endswith("nothing to improve")
    change(ideal)
    _, advice = advise(ideal)
    assert len(advice) == 1
    assert words in advice[0]
