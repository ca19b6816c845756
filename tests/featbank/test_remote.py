"""A place in a store answers as a path on a disk does; what a store refuses comes out as a sentence."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.digest import digest_bytes
from featbank.errors import StoreError
from featbank.keys import StatCache
from featbank.remote import (
    RemotePath,
    as_place,
    digest_at,
    find_statuses,
    is_url,
    open_store,
    plain_errors,
    replace_file,
)
from tests.support.memory_store import upload

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1, max_size=8).filter(
    lambda name: name.strip(".") != ""
)


@given(st.lists(NAMES, min_size=1, max_size=4), NAMES)
def test_names_are_cut_and_joined_as_those_of_paths(parts: list[str], name: str) -> None:
    path, place = PurePosixPath("b", *parts), RemotePath.parse("s3://" + "/".join(["b", *parts]))
    assert str(place) == f"s3://{path}"
    assert RemotePath.parse(str(place)) == place == pickle.loads(pickle.dumps(place))
    for attribute in ("name", "stem", "suffix", "parts"):
        assert getattr(place, attribute) == getattr(path, attribute)
    assert str(place / name) == f"s3://{path / name}"
    assert (place / name).parent == place
    assert (place / name).relative_to(place.parent) == PurePosixPath(path.name, name)
    assert place / ".." == place.parent
    assert [str(parent) for parent in place.parents] == [f"s3://{p}" for p in path.parents if p.parts]


@pytest.mark.parametrize("text", ["s3://b/x", "memory://x", "gs://b", "S3://b", "a+b://c"])
def test_a_url_names_a_store(text: str) -> None:
    assert is_url(text)
    assert isinstance(as_place(text), RemotePath)


@pytest.mark.parametrize("text", ["photos", "/photos", "C://x", "a/s3://b", "://x", "~/x", "", "x:/y"])
def test_everything_else_is_a_path(text: str) -> None:
    assert not is_url(text)
    assert as_place(text) == Path(text)


def test_a_file_url_is_the_file_itself(tmp_path: Path) -> None:
    assert as_place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert not is_url(f"file://{tmp_path}")


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(StoreError, match="s3://bucket/name"):
        as_place("s3://")


def test_files_are_told_from_folders_and_from_nothing(memory_url: str) -> None:
    place = as_place(memory_url)
    assert isinstance(place, RemotePath)
    assert not place.exists()
    assert place.scan() == []
    (place / "deep/file.txt").write_bytes(b"content")
    assert place.is_dir()
    assert not place.is_file()
    file = place / "deep" / "file.txt"
    assert file.is_file()
    assert not file.is_dir()
    assert not (place / "deep/file").exists()  # a prefix of a name is no folder
    assert [entry.name for entry in place.scan()] == ["deep"]
    assert file.scan() == []
    assert (file.read_bytes(), file.read_text(), file.stat().st_size) == (b"content", "content", 7)
    assert file.digest() == digest_at(str(file)) == digest_bytes(b"content")
    file.unlink()
    for ask in (file.read_bytes, file.stat, file.unlink, file.digest, file.open):
        with pytest.raises(FileNotFoundError):
            ask()


@pytest.mark.parametrize("n_files", [2, 20])
def test_many_are_looked_up_at_once(memory_url: str, n_files: int) -> None:
    place = as_place(memory_url)
    for number in range(n_files):
        (place / f"{number}").write_bytes(b"x" * number)
    wanted = [f"{memory_url}/{number}" for number in range(n_files)]
    found = find_statuses([*wanted, f"{memory_url}/none", f"{memory_url}/other/none"])
    assert {name: status.st_size for name, status in found.items()} == {
        name: number for number, name in enumerate(wanted)
    }


def test_a_cache_is_replaced_whole_on_a_disk_and_in_a_store(memory_url: str, tmp_path: Path) -> None:
    for place in (as_place(memory_url) / "cache", tmp_path / "cache"):
        for content in (b"one", b"other"):
            replace_file(place, content[:1], content[1:])
            assert place.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        replace_file(tmp_path / "folder", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "folder"]


class Marked:
    """A store in memory that marks contents as S3 does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, memory_url: str) -> None:
        self.reads: list[str] = []
        kind = type(open_store(memory_url))
        info, ls, opened = kind.info, kind.ls, kind.open

        def marked(store: Any, found: dict[str, Any]) -> dict[str, Any]:
            return found | {
                "ETag": digest_bytes(store.cat_file(found["name"])) if found["type"] == "file" else ""
            }

        def counted(store: Any, path: str, mode: str = "rb", **options: Any) -> Any:
            if mode == "rb":
                self.reads.append(path.rpartition("/")[2])
            return opened(store, path, mode, **options)

        monkeypatch.setattr(kind, "info", lambda store, path: marked(store, info(store, path)))
        monkeypatch.setattr(
            kind,
            "ls",
            lambda store, path, detail: [marked(store, found) for found in ls(store, path, detail)],
        )
        monkeypatch.setattr(kind, "open", counted)


@pytest.mark.parametrize("n_files", [3, 12])
def test_objects_with_their_old_mark_are_not_read_again(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_files: int
) -> None:
    for number in range(n_files):
        (tmp_path / f"{number}.jpg").write_bytes(b"%02d" % number)
    upload(tmp_path, memory_url)
    store = Marked(monkeypatch, memory_url)
    paths = [f"{memory_url}/{number}.jpg" for number in range(n_files)]
    for _ in range(2):
        digests = StatCache(tmp_path / "cache").digests([*paths, f"{memory_url}/none.jpg"])
        assert digests == [*(digest_bytes(b"%02d" % number) for number in range(n_files)), None]
        assert sorted(store.reads) == sorted(f"{number}.jpg" for number in range(n_files))
    store.reads.clear()
    (as_place(memory_url) / "1.jpg").write_bytes(b"xx")  # as long as before
    assert StatCache(tmp_path / "cache").digests(paths)[1] == digest_bytes(b"xx")
    assert store.reads == ["1.jpg"]
    StatCache(tmp_path / "cache").digests(paths, rehash=True)
    assert len(store.reads) == 1 + n_files


def test_without_a_mark_the_content_decides(memory_url: str, tmp_path: Path) -> None:
    place = as_place(memory_url) / "a.jpg"
    for content in (b"one", b"two"):
        place.write_bytes(content)
        assert StatCache(tmp_path / "cache").digests([str(place)]) == [digest_bytes(content)]


@pytest.mark.parametrize(
    ("absent", "place", "words"),
    [
        ("s3fs", "s3://bucket/bank", r"pip install 'featbank\[s3\]'"),
        ("fsspec", "s3://bucket/bank", r"pip install 'featbank\[s3\]'"),
        ("gcsfs", "gs://bucket/bank", "pip install gcsfs"),
    ],
)
def test_a_missing_library_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, absent: str, place: str, words: str
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(StoreError, match=words):
        RemotePath.parse(place).exists()


def test_an_unknown_kind_of_store_is_refused() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(StoreError, match="no kind of store is called nosuch://"):
        RemotePath.parse("nosuch://bucket/bank").exists()


class ClientError(Exception):
    """What the library of S3 raises: the store's own code, inside."""

    def __init__(self, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}}


class EndpointConnectionError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "words", "is_refusal"),
    [
        (PermissionError("Forbidden"), "refused access .*AWS_", True),
        (ClientError("SignatureDoesNotMatch"), "refused access", True),
        (EndpointConnectionError("http://nowhere"), "does not answer .*AWS_ENDPOINT_URL", False),
        (ConnectionResetError("reset"), "does not answer", False),
        (ClientError("SlowDown"), "ClientError: An error occurred .SlowDown.", False),
        (OSError(5, "odd"), "odd", False),
    ],
)
def test_what_a_store_raises_becomes_a_sentence(error: Exception, words: str, is_refusal: bool) -> None:
    with pytest.raises(StoreError, match=words) as caught, plain_errors("s3://b/x"):
        raise error
    assert str(caught.value).startswith("s3://b/x: ")
    assert caught.value.is_refusal is is_refusal
    sent = pickle.loads(pickle.dumps(caught.value))  # from a worker process
    assert (str(sent), sent.is_refusal, sent.cure) == (str(caught.value), is_refusal, caught.value.cure)


def test_not_found_is_an_answer_when_reading_and_a_missing_bucket_when_writing() -> None:
    with pytest.raises(FileNotFoundError, match="no such object"), plain_errors("s3://b/x"):
        raise FileNotFoundError
    with (
        pytest.raises(StoreError, match="no such bucket"),
        plain_errors("s3://b/x", is_missing_possible=False),
    ):
        raise FileNotFoundError
