import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featbank import atomic
from featbank.atomic import (
    MARKER,
    FolderKind,
    check_file,
    check_folder,
    replacing,
    replacing_files,
    replacing_folder,
    sweep,
    write_file,
)
from featbank.errors import OutputError
from tests.support.mounts import read_only

RUN = FolderKind("run", lambda folder: ("a.txt", "b.txt") if (folder / "receipt").exists() else ())
WHO = "fit --out"


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text, hidden ones too, without markers."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def refuse(number: int) -> None:
    raise OSError(number, os.strerror(number))


def visible(folder: Path) -> dict[str, str]:
    """As contents, without hidden files: one that cannot be removed stays for the next sweep."""
    return {name: text for name, text in contents(folder).items() if name[0] != "."}


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_run(target: Path, *, kind: FolderKind = RUN, **files: str) -> None:
    check_folder(target, kind, WHO)
    with replacing_folder(target, kind, WHO) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> Iterator[list[int]]:
    """Let the call ``at`` (from 0) of a function of `os` fail; the list holds it once that has happened."""
    real, calls, reached = getattr(os, name), iter(range(1000)), []

    def fake(*arguments, **options):
        if next(calls) == at:
            reached.append(at)
            refuse(errno.EIO)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fake)
        yield reached


# --- files


def test_a_file_appears_whole_with_the_rights_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "x.csv", "one", "score --csv")
        write_file(tmp_path / "x.csv", "two \udc80", "score --csv")
    finally:
        os.umask(before)
    assert contents(tmp_path) == {"x.csv": "two ?"}
    assert (tmp_path / "x.csv").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("can_swap", [True, False])
def test_a_failure_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool
) -> None:
    if not can_swap:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    (tmp_path / "x.csv").write_text("old")
    for call in (0, 1) if can_swap else (0,):  # of the file, of its folder
        with failing(monkeypatch, "fsync", call), pytest.raises(OutputError, match=r"x\.csv.*EIO.*intact"):
            write_file(tmp_path / "x.csv", "new", "score --csv")
        assert contents(tmp_path) == {"x.csv": "old"}
    with pytest.raises(KeyError), replacing(tmp_path / "x.csv", "score --csv") as scratch:
        raise KeyError(scratch.write_text("new"))
    assert contents(tmp_path) == {"x.csv": "old"}


def test_an_error_about_another_file_is_not_explained_as_one_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match="photo"), replacing(tmp_path / "out" / "x", "score --csv"):
        (tmp_path / "in" / "photo").read_bytes()


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "x.csv")
    write_file(tmp_path / "link.csv", "text", "score --csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real" / "x.csv").read_text() == "text"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("none/x.csv", "score --csv: .*none' must be a folder"),
        ("folder", "score --csv must name a file"),
        ("/dev/null", "score --csv must name a file"),
        ("/proc/x.csv", "score --csv: cannot write '/proc/x.csv'"),
        ("thesis.csv", "thesis.csv' holds something else than an earlier result"),
        ("thesis.csv/x.csv", "thesis.csv' must be a folder"),
    ],
)
def test_a_place_for_a_file_is_tried_before_the_work(tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "thesis.csv").write_text("image,mos\n")
    with pytest.raises(OutputError, match=message):
        check_file(tmp_path / target, "score --csv", lambda path: path.read_text().startswith("image,pred"))
    assert contents(tmp_path) == {"thesis.csv": "image,mos\n"}


def test_new_empty_and_own_files_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "own.csv").write_text("image,pred\n")
    for name in ("new.csv", "empty.csv", "own.csv"):
        check_file(tmp_path / name, "score --csv", lambda path: path.read_text().startswith("image,pred"))


# --- folders


def test_a_folder_is_replaced_as_a_whole_and_lists_its_files(tmp_path: Path) -> None:
    write_run(tmp_path / "deep" / "run", a="1", b="1")
    write_run(tmp_path / "deep" / "run", b="2", c="2")
    assert contents(tmp_path) == {"deep/run/b": "2", "deep/run/c": "2"}
    marker = json.loads((tmp_path / "deep" / "run" / MARKER).read_text())
    assert (marker["kind"], marker["files"]) == ("run", ["b", "c"])


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "notes", "bank", "a"])
@pytest.mark.parametrize("has_run", [True, False])
def test_what_featbank_did_not_write_is_named_and_untouched(tmp_path: Path, name: str, has_run: bool) -> None:
    target = tmp_path / "run"
    if has_run:
        write_run(target, b="1")
    (target / name).mkdir(parents=True)
    (target / name / "file").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=rf"fit --out .*'{name}'.* Nothing was touched"):
        check_folder(target, RUN, WHO)
    assert contents(tmp_path) == before


def test_folders_of_other_kinds_and_files_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "student", kind=FolderKind("student"), a="1")
    (tmp_path / "file").write_text("mine")
    for target, message in (
        ("student", "holds a student, not a run"),
        ("file", "must be a folder, got the file"),
        ("file/x", "must be a folder, got a file"),
        ("/proc/x", "cannot write '/proc/x'"),
    ):
        with pytest.raises(OutputError, match=message):
            check_folder(tmp_path / target, RUN, WHO)


def test_folders_of_earlier_versions_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "receipt").write_text("")
    (tmp_path / "run" / "a.txt").write_text("old")
    with pytest.raises(OutputError, match="'receipt'"):
        check_folder(tmp_path / "run", RUN, WHO)
    kind = FolderKind("run", lambda folder: ("receipt", "a.txt"))
    write_run(tmp_path / "run", kind=kind, b="new")
    assert contents(tmp_path) == {"run/b": "new"}


@pytest.mark.parametrize("case", ["plain", "no swap", "no swap, no links", "current", "links"])
def test_what_comes_while_the_work_runs_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    target = tmp_path / "run"
    write_run(target, a="1", b="1")
    if "no swap" in case:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    if "no links" in case:
        monkeypatch.setattr(os, "link", lambda *names, **options: refuse(errno.EPERM))
    if case == "current":
        monkeypatch.chdir(target)
    with replacing_folder(target, RUN, WHO) as folder:
        (folder / "b").write_text("2")
        (folder / "c").write_text("2")
        (target / "notes").mkdir()
        (target / "notes" / "a.txt").write_text("mine")
        (target / "c").write_text("mine")
        (target / "d").write_text("mine")
    mine = {"run/c.1": "mine", "run/d": "mine", "run/notes/a.txt": "mine"}
    assert contents(tmp_path) == {"run/b": "2", "run/c": "2", **mine}
    assert listed(tmp_path) == ["run"]


@pytest.mark.parametrize("can_swap", [True, False])
@pytest.mark.parametrize("name", ["fsync", "rename", "mkdir", "open", "link", "unlink"])
def test_a_failing_call_leaves_the_earlier_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool, name: str
) -> None:
    if not can_swap:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    target = tmp_path / "run"
    write_run(target, a="1", b="1")
    for call in range(50):
        was_reached = False
        with failing(monkeypatch, name, call) as reached:
            try:
                write_run(target, b="2", c="2")
            except OutputError:
                assert visible(target) == {"a": "1", "b": "1"}, call
            was_reached = bool(reached)
        if "c" in listed(target):
            assert visible(target) == {"b": "2", "c": "2"}
            write_run(target, a="1", b="1")
        if not was_reached:
            break
    else:
        raise AssertionError(name)
    assert call or (can_swap and name in {"rename", "link"})
    assert listed(tmp_path) == ["run"]


def test_files_join_a_folder_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run"
    write_run(target, a="1", page="1")
    for call in range(30):
        failed = False
        try:
            with failing(monkeypatch, "rename", call), replacing_files(target, RUN, "report") as folder:
                for name in ("page", "figure", "table"):
                    (folder / name).write_text("2")
        except OutputError:
            failed = True
        assert (
            contents(target) == {"a": "1", "page": "1"}
            if failed
            else {"figure": "2"}.items() <= contents(target).items()
        )
        if not failed:
            break
    assert call > 3
    (target / "mine").write_text("mine")
    with (
        pytest.raises(OutputError, match="'mine', which featbank did not write"),
        replacing_files(target, RUN, "report") as folder,
    ):
        (folder / "mine").write_text("3")
    assert contents(target) == {"a": "1", "page": "2", "figure": "2", "table": "2", "mine": "mine"}
    (target / "mine").unlink()
    check_folder(target, RUN, WHO)


def test_read_only_places_are_refused_before_the_work(tmp_path: Path) -> None:
    write_run(tmp_path / "disk" / "run", a="1")
    with read_only(tmp_path / "disk"):
        for target in ("run", "new", "a/b/c"):
            with pytest.raises(OutputError, match=rf"{target}': the file system is read-only \(EROFS\)"):
                check_folder(tmp_path / "disk" / target, RUN, WHO)


# --- what killed processes left

LEAVE = """
import os, sys
from pathlib import Path
from featbank.atomic import FolderKind, replacing, replacing_folder
target = Path(sys.argv[2])
kind = FolderKind("run")
with replacing(target, "x") if sys.argv[1] == "file" else replacing_folder(target, kind, "x") as place:
    (place if place.is_file() else place / "a").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_scratch_goes_with_the_next_run_but_never_while_its_process_lives(tmp_path: Path, kind: str) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", LEAVE, kind, str(tmp_path / "x")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        sweep(tmp_path)
        (left,) = listed(tmp_path)
        other.kill()
    assert left.startswith(".featbank-")
    assert listed(tmp_path) == [left]
    write_file(tmp_path / "y", "new", "score --csv")
    assert listed(tmp_path) == ["y"]


def test_sweeping_touches_nothing_that_featbank_did_not_write(tmp_path: Path) -> None:
    holder = tmp_path / f".featbank-{'0' * 32}"
    for name in ("new/a", "new/b", "new/notes/c"):
        (holder / name).parent.mkdir(parents=True, exist_ok=True)
        (holder / name).write_text(name)
    (holder / "new" / MARKER).write_text(json.dumps({"kind": "run", "files": ["a"]}))
    (tmp_path / ".featbank-mine").write_text("mine")
    sweep(tmp_path)
    kept = {"new/b": "new/b", "new/notes/c": "new/notes/c"}
    assert contents(holder) == {**kept, "lock": ""}
    assert (tmp_path / ".featbank-mine").exists()
