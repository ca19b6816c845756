"""The commands on banks and photographs in an object store: S3 on this machine, and a store in memory."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank
from featbank.cli import main
from tests.support.bank_rows import contents
from tests.support.datasets import write_csv, write_image
from tests.support.memory_store import upload
from tests.support.s3_server import BUCKET, S3Server, s3_server

needs_s3 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto", "flask")),
    reason="needs the optional packages s3fs and moto[server]",
)
N_PHOTOS = 12
NOISE = re.compile("Traceback|Unclosed|never retrieved|was never awaited")
RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[regression]
alpha = [1.0, 100.0]
cv = { kind = "kfold", n_splits = 3 }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for n in range(N_PHOTOS):
        write_image(folder / "photos" / f"{n}.png", seed=n)
    rows = [(f"{n}.png", 1.0 + n / 10) for n in range(N_PHOTOS)]
    write_csv(folder / "photos/scores.csv", ["path", "mos"], rows)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def features(project: Path, data: str | Path, bank: str | Path, *more: str) -> list[str]:
    recipe = str(project / "recipe.toml")
    return ["features", str(data), "--recipe", recipe, "--bank", str(bank), "--workers", "1", *more]


def rows(bank: Path) -> dict[str, bytes]:
    """Every byte of a bank but its caches and its log of times."""
    return {name: data for name, data in contents(bank).items() if "/" in name}


@needs_s3
def test_two_writers_at_once_make_the_bank_of_one_process_from_photos_in_the_store(
    server: S3Server, project: Path, tmp_path: Path
) -> None:
    data, bank = f"s3://{BUCKET}/data", f"s3://{BUCKET}/bank"
    server.upload(project / "photos", data)
    table = f"{data}/scores.csv"
    writers = [server.start(*features(project, table, bank, "--shard", f"{n}/2")) for n in range(2)]
    for writer in writers:
        with writer:
            _, errors = writer.communicate(timeout=300)
            assert writer.returncode == 0, errors
            assert not NOISE.search(errors)
    read_before = len(re.findall(r"GET /photos/data/\d+\.png", server.log()))
    code, output, errors = server.run(*features(project, table, bank, "--json"))
    assert code == 0, errors
    assert not NOISE.search(errors)
    assert [json.loads(output)[name] for name in ("computed", "cached")] == [0, N_PHOTOS]
    # What the two learned of the photos may have been lost to one another, never all of it.
    assert len(re.findall(r"GET /photos/data/\d+\.png", server.log())) - read_before < N_PHOTOS
    assert server.run("bank", "prune", "--bank", bank)[0] == 0
    assert main(features(project, project / "photos/scores.csv", tmp_path / "alone")) == 0
    Bank(tmp_path / "alone").compact()
    assert rows(server.download(bank, tmp_path / "bank")) == rows(tmp_path / "alone")


@needs_s3
def test_a_store_that_goes_away_ends_the_command_with_a_sentence(project: Path, tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        server.options["FSSPEC_S3"] = json.dumps({"config_kwargs": {"retries": {"max_attempts": 1}}})
        running = server.start(*features(project, project / "photos/scores.csv", f"s3://{BUCKET}/bank"))
        with running:
            deadline = time.monotonic() + 120
            while "PUT /photos/bank" not in server.log():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            server.stop()
            _, errors = running.communicate(timeout=300)
    assert running.returncode == 1
    assert re.match(
        r"featbank: (bank: )?.*s3://.*the store does not answer .* run the same command again", errors
    )
    assert not NOISE.search(errors)


@needs_s3
def test_a_store_that_refuses_ends_the_command_with_a_sentence(project: Path, tmp_path: Path) -> None:
    with s3_server(tmp_path, refuses=True) as server:
        bank = f"s3://{BUCKET}/bank"
        code, _, errors = server.run(*features(project, project / "photos/scores.csv", bank))
    assert code == 1
    assert re.search(r"featbank: .*s3://.*the store refused access .*Check the credentials", errors)
    assert not NOISE.search(errors)


def test_every_command_takes_a_bank_and_a_dataset_in_a_store(
    project: Path,
    tmp_path: Path,
    memory_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    upload(project / "photos", memory_url)
    np.save("own.npy", np.random.default_rng(0).normal(size=(N_PHOTOS, 3)))
    recipe, data, bank = str(project / "recipe.toml"), f"{memory_url}/scores.csv", f"{memory_url}/bank"
    model = "run/model.skops"
    for command in (
        ["bank", "import", data, "own.npy", "--band", "own"],
        features(project, data, bank),
        ["fit", data, "--recipe", recipe, "--out", "run", "--permutations", "0", "--workers", "1"],
        ["score", model, f"{memory_url}/3.png", f"{memory_url}/4.png", "--workers", "1", "--csv", "far.csv"],
        ["bank", "ls"],
        ["bank", "verify"],
        ["bank", "export", "far-table.csv", "--data", data, "--recipe", recipe],
        ["bank", "prune", "--recipe", recipe, "--yes"],
        ["doctor", "--json"],
    ):
        takes_bank = [] if "--bank" in command else ["--bank", bank]
        assert main([*command, *takes_bank]) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
    assert json.loads(printed)["bank"] == {"folder": bank, "exists": True, "writable": True}
    near, photos = str(tmp_path / "bank"), project / "photos"
    assert main(features(project, photos / "scores.csv", near)) == 0
    table = ["--data", str(photos / "scores.csv"), "--recipe", recipe, "--bank", near]
    assert main(["bank", "export", "near-table.csv", *table]) == 0
    paths = [str(photos / "3.png"), str(photos / "4.png")]
    assert main(["score", model, *paths, "--workers", "1", "--csv", "near.csv", "--bank", near]) == 0
    assert Path("far-table.csv").read_bytes() == Path("near-table.csv").read_bytes()
    assert Path("far.csv").read_text().replace(memory_url, str(photos)) == Path("near.csv").read_text()


def test_a_url_without_its_library_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    for command in (
        features(project, project / "photos/scores.csv", "s3://bucket/bank"),
        features(project, "s3://bucket/photos", "bank"),
        ["bank", "ls", "--bank", "s3://bucket/bank"],
        ["score", "model.skops", "s3://bucket/photos", "--bank", "s3://bucket/bank"],
    ):
        assert main(command) == 1
        assert "pip install 'featbank[s3]'" in capsys.readouterr().err


def test_an_outage_of_the_photos_store_ends_the_run_and_blames_no_photo(
    project: Path,
    tmp_path: Path,
    memory_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from featbank import feature
    from featbank.remote import plain_errors

    upload(project / "photos", memory_url)
    read, n_read = feature.read_photo, 0

    def failing(path: str, **options: bool) -> object:
        nonlocal n_read
        n_read += 1
        if n_read == 6:
            with plain_errors(path):
                raise ConnectionResetError
        return read(path, **options)

    monkeypatch.setattr(feature, "read_photo", failing)
    arguments = features(project, f"{memory_url}/scores.csv", tmp_path / "bank")
    assert main(arguments) == 1
    assert "does not answer" in capsys.readouterr().err
    bank = Bank(tmp_path / "bank")
    assert len(bank.images.failures()) == 0
    assert len(bank.features()[0].keys()) == 5  # what was finished is kept
    assert main(arguments) == 0
    assert len(bank.features()[0].keys()) == N_PHOTOS
