"""The stat cache: unchanged files are not read, changed ones always are, and it is never more than a cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank import keys
from featbank.digest import digest_bytes
from featbank.keys import StatCache

SETTLED = -60.0
"""A margin under which files written just now count as settled; nothing else lets a test wait so little."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read."""
    seen: list[str] = []
    whole = StatCache._read_file

    def counted(self: StatCache, path: str | Path) -> object:
        seen.append(Path(path).name)
        return whole(self, path)

    monkeypatch.setattr(StatCache, "_read_file", counted)
    return seen


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "photos" / f"{name}.jpg" for name in "abc"]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def expected(paths: list[Path]) -> list[str]:
    return [digest_bytes(path.read_bytes()) for path in paths]


def test_unchanged_files_are_read_once(files: list[Path], tmp_path: Path, reads: list[str]) -> None:
    for _ in range(3):  # a new object each time, as each process has its own
        assert StatCache(tmp_path / "cache", doubt_s=SETTLED).digests(files) == expected(files)
    assert sorted(reads) == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("keep_mtime", [False, True])
def test_a_changed_file_is_read_again_even_with_its_old_time(
    files: list[Path], tmp_path: Path, reads: list[str], keep_mtime: bool
) -> None:
    cache = StatCache(tmp_path / "cache", doubt_s=SETTLED)
    cache.digests(files)
    before = files[1].stat()
    reads.clear()
    files[1].write_bytes(b"x.jpg")  # as long as before
    if keep_mtime:
        os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.digests(files) == expected(files)
    assert reads == ["b.jpg"]


def test_another_file_under_the_old_name_is_read(files: list[Path], tmp_path: Path, reads: list[str]) -> None:
    cache = StatCache(tmp_path / "cache", doubt_s=SETTLED)
    cache.digests(files)
    reads.clear()
    files[0].replace(files[2])
    assert cache.digests(files) == [None, *expected(files[1:])]
    assert "c.jpg" in reads


def test_files_touched_just_before_are_read_again(
    files: list[Path], tmp_path: Path, reads: list[str]
) -> None:
    """Within one tick of the clock a second change could leave the same times."""
    assert keys.DOUBT_S >= 2  # FAT counts in steps of two seconds
    cache = StatCache(tmp_path / "cache", doubt_s=600.0)
    cache.digests(files)
    cache.digests(files)
    assert len(reads) == 6
    assert not (tmp_path / "cache").exists()
    old = StatCache(tmp_path / "cache", doubt_s=0.05)
    time.sleep(0.1)
    old.digests(files)
    old.digests(files)
    assert len(reads) == 9


def test_rehash_reads_every_file(files: list[Path], tmp_path: Path, reads: list[str]) -> None:
    cache = StatCache(tmp_path / "cache", doubt_s=SETTLED)
    cache.digests(files)
    assert cache.digests(files, rehash=True) == expected(files)
    assert len(reads) == 6


def test_what_is_no_regular_file_has_no_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    paths = [tmp_path, tmp_path / "pipe", tmp_path / "gone", loop, "zero\0byte"]
    assert StatCache(tmp_path / "cache").digests(paths) == [None] * 5


def test_neighbours_add_to_one_file(files: list[Path], tmp_path: Path, reads: list[str]) -> None:
    one, two = (StatCache(tmp_path / "cache", doubt_s=SETTLED) for _ in range(2))
    one.digests(files[:2])
    two.digests(files[2:])
    reads.clear()
    assert one.digests(files) == expected(files)
    assert reads == []


@given(st.data())
def test_a_damaged_cache_is_no_cache(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damage")
    photo, path = folder / "a.jpg", folder / "cache"
    photo.write_bytes(b"photo")
    cache = StatCache(path, doubt_s=SETTLED)
    cache.digests([photo])
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[place] ^= data.draw(st.integers(1, 255))
    else:
        del whole[place:]
    path.write_bytes(whole)
    assert cache._load() == {}
    assert cache.digests([photo]) == [digest_bytes(b"photo")]


def test_it_is_saved_while_a_long_hashing_goes_on(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SAVE_S", 0.0)
    monkeypatch.setattr(keys, "_CHUNK", 1)
    cache = StatCache(tmp_path / "cache", doubt_s=SETTLED)
    hashed = StatCache._read_file

    def interrupted(self: StatCache, path: str | Path) -> object:
        if Path(path).name == "c.jpg":
            raise KeyboardInterrupt
        return hashed(self, path)

    monkeypatch.setattr(StatCache, "_read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.digests(files)
    assert 1 <= len(cache._load()) <= 2


def test_where_nothing_can_be_written_nothing_fails(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache in (
        StatCache(None),
        StatCache(tmp_path / "cache", read_only=True, doubt_s=SETTLED),
        StatCache(tmp_path / "file" / "below-a-file", doubt_s=SETTLED),
    ):
        assert cache.digests(files) == expected(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]
