"""Writes files and folders that are there as a whole or as they were before: the one writer of all output.

New content is made under a hidden name beside its target, flushed to the disk, and takes the target's name in one
step. What a killed process left under such a name is removed by the next writer there; a lock that a living process
holds on it tells the two apart. A folder carries a marker that lists the files of its making: only those are ever
replaced or removed, whatever else lies there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import json
import os
import re
import stat
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from featbank import __version__
from featbank.errors import FeatbankError, OutputError, first_few

if os.name == "posix":
    import fcntl

MARKER: Final = ".featbank.json"
"""File that lists what featbank wrote into a folder."""

_SCRATCH = re.compile(r"\.featbank-[0-9a-f]{32}(\.[^.]*)?")
_LOCK, _NEW, _OLD = "lock", "new", "old"
_PASSENGERS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Written into every folder by file managers: no reason to refuse one, and they stay where they are."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

REASONS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the process or the file system allows",
    errno.EIO: "the device reported an input/output error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.ENAMETOOLONG: "the path is too long",
    errno.EMFILE: "this process has too many files open",
    errno.ENFILE: "this machine has too many files open",
}
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORBIDDEN: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def describe_error(error: OSError) -> str:
    """Say what the operating system refused, such as ``the disk is full (ENOSPC)``."""
    number = error.errno or 0
    code = errno.errorcode.get(number, "no error number")
    return f"{REASONS.get(number, error.strerror or str(error))} ({code})"


@dataclass(frozen=True)
class FolderKind:
    """How the folders of one kind of output are known."""

    name: str  # stands in the marker and in messages: ``"run"``, ``"student"``
    # Takes a folder without a marker and returns the names that an earlier version, or an unfinished work, has
    # written there; empty if it is none
    own: Callable[[Path], Iterable[str]] = lambda folder: ()
    # Names that other processes may be using; they stay, and count as featbank's
    shared: frozenset[str] = frozenset()


# --- files


@contextlib.contextmanager
def replacing(target: str | Path, who: str) -> Iterator[Path]:
    """Give a hidden path beside ``target`` to write to; it takes the place of ``target`` when the block ends well.

    Parameters
    ----------
    target : path
        Its folder exists. A link is followed: the file it leads to is replaced, not the link.
    who : str
        Begins the message of an error, such as ``"score --csv"``.

    Yields
    ------
    Path
        An empty file with the ending of ``target``, as readable as the umask allows.

    Raises
    ------
    OutputError
        If the operating system refuses any step; ``target`` is then as before, and the hidden file is gone.
    """
    target = _real(target)
    with _explaining(who, target), scratch_file(target.parent, target.suffix) as scratch:
        mode = scratch.stat().st_mode
        yield scratch
        if scratch.stat().st_mode != mode:
            scratch.chmod(mode)  # some libraries write for the owner alone
        sync_file(scratch)
        _take_name(scratch, target)


@contextlib.contextmanager
def scratch_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Give an empty hidden file that goes when the block ends, or when the next one is made there after a kill."""
    sweep(folder)
    path, descriptor = _new_file(folder, suffix)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # it has another name by now, or stays for the next sweep
            path.unlink()
        os.close(descriptor)


def write_file(target: str | Path, data: bytes | str, who: str) -> Path:
    """Write a whole file, or leave the earlier one as it was; text as UTF-8, in which half characters become ``?``."""
    with replacing(target, who) as scratch:
        scratch.write_bytes(data.encode("utf-8", errors="replace") if isinstance(data, str) else data)
    return Path(target)


def check_file(target: str | Path, who: str, is_ours: Callable[[Path], bool]) -> None:
    """Learn before the work what would be refused after it: whether a file can be written or replaced.

    Parameters
    ----------
    target : path
        What the user named.
    who : str
        Begins the message, such as ``"score --csv"``.
    is_ours : callable
        Takes the path of an existing file that is not empty and tells whether featbank wrote it.

    Raises
    ------
    OutputError
        If the folder is missing or not writable, or the target is a folder, a device, or somebody else's file.
    """
    real = _real(target)
    with _explaining(who, real):
        if not real.parent.is_dir():
            raise OutputError(
                f"{who}: {str(real.parent)!r} must be a folder, and is none. Make it first, or correct it."
            )
        if os.path.lexists(real):
            if not real.is_file():
                raise OutputError(
                    f"{who} must name a file, got {str(target)!r}, which is a folder or a device. Name a file in it, "
                    "or leave the option out."
                )
            if real.stat().st_size and not is_ours(real):
                raise OutputError(
                    f"{who}: {str(target)!r} holds something else than an earlier result of this command and was left "
                    "alone. Choose another name."
                )
            if not os.access(real, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(real))
        _try_writing(real.parent)


# --- folders


def check_folder(target: str | Path, kind: FolderKind, who: str) -> None:
    """Refuse, as `check_file` does, a place where a folder cannot be written or replaced; it may be missing."""
    real = _real(target)
    with _explaining(who, real):
        above = real.parent
        while not os.path.lexists(above):
            above = above.parent
        if not above.is_dir():
            raise OutputError(f"{who}: {str(above)!r} must be a folder, got a file. Choose another place.")
        if not os.path.lexists(real):
            _try_writing(above)
            return
        if not real.is_dir():
            raise OutputError(f"{who} must be a folder, got the file {str(target)!r}. Choose another name.")
        marker = _read_marker(real)
        if marker is not None and marker[0] != kind.name:
            raise OutputError(
                f"{who}: {str(target)!r} holds a {marker[0]}, not a {kind.name}. Nothing was touched; choose another "
                "folder."
            )
        if foreign := _foreign(real, kind):
            raise OutputError(
                f"{who} must be a new or empty folder or an earlier {kind.name}, got {str(target)!r}, which holds "
                f"something else: {first_few([*map(repr, foreign)])}. Nothing was touched; choose another folder."
            )
        _try_writing(real)
        if _is_movable(real):
            _try_writing(above)


@contextlib.contextmanager
def replacing_folder(target: str | Path, kind: FolderKind, who: str) -> Iterator[Path]:
    """Give a hidden folder beside ``target`` whose files take the place of an earlier output when the block ends well.

    All files are on the disk before the old ones go, and the folders swap names in one step: at any moment there is
    the old output or the new one. (Where a file system cannot swap, or the target is the current folder or a mount
    point, the files are moved one by one, and moved back if one of them cannot be.) What featbank did not write stays
    in the folder, under another name if the new output needs its own.

    Yields
    ------
    Path
        An empty folder, to be filled with files; sub-folders are not for it.

    Raises
    ------
    OutputError
        If the operating system refuses any step; ``target`` is then as before, and the hidden folder is gone.
    """
    target = _real(target)
    with _explaining(who, target):
        _make_folders(target.parent)
        is_movable = _is_movable(target)
        with _holder(target.parent if is_movable else target) as new:
            yield new
            names = set(_list(new))
            _write_marker(new, kind, names)
            _sync_all(new)
            if not os.path.lexists(target):
                _take_name(new, target)
            else:
                own = _own(target, kind)
                for name in names - own:
                    if os.path.lexists(target / name):
                        (target / name).rename(_free(target, name))
                if not (is_movable and _swap(new, target, kind, own)):
                    _write_marker(new, kind, own | names)
                    _sync_all(new)
                    _move_into(new, target, own - names)


@contextlib.contextmanager
def replacing_files(
    folder: str | Path, kind: FolderKind, who: str, gone: Iterable[str] = ()
) -> Iterator[Path]:
    """Give a hidden folder whose files join those of an existing output when the block ends well: all, or none.

    Files named in ``gone`` go, unless they are written again. Refused where a name is taken by a file that featbank did
    not write; all files are then as before.
    """
    folder = _real(folder)
    with _explaining(who, folder), _holder(folder) as new:
        yield new
        own, names = _own(folder, kind), set(_list(new))
        if taken := sorted(name for name in names - own if os.path.lexists(folder / name)):
            raise OutputError(
                f"{who}: {str(folder)!r} holds {first_few([*map(repr, taken)])}, which featbank did not write. "
                "Nothing was touched; move it, or choose another folder."
            )
        _write_marker(new, kind, own | names)
        _sync_all(new)
        _move_into(new, folder, (own & set(gone)) - names)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of featbank's from a folder, and the folder if nothing else lies in it."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


# --- what killed processes left


def sweep(folder: Path) -> None:
    """Remove hidden files and folders that killed processes left in ``folder``, none of a living one."""
    if os.name != "posix":
        return
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if _SCRATCH.fullmatch(entry.name)]
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
            descriptor = os.open(
                path / _LOCK if is_folder else path,
                os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if is_folder else 0),
                0o666,
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(path) if is_folder else path.unlink()
            finally:
                os.close(descriptor)


def _clear(holder: Path) -> None:
    """Remove a hidden folder, but nothing in it that featbank did not write and that lies nowhere else."""
    for part in (holder / _NEW, holder / _OLD):
        if part.is_dir():
            marker = _read_marker(part)
            for entry in list(os.scandir(part)):
                is_ours = marker is None or entry.name == MARKER or entry.name in marker[1]
                if not entry.is_dir(follow_symlinks=False) and (is_ours or entry.stat().st_nlink > 1):
                    Path(entry.path).unlink()
            part.rmdir()
    (holder / _LOCK).unlink(missing_ok=True)
    holder.rmdir()


# --- steps


def _real(target: str | Path) -> Path:
    """Follow links, so that what they lead to is replaced and not they."""
    return Path(os.path.realpath(target))


@contextlib.contextmanager
def _explaining(who: str, target: Path) -> Iterator[None]:
    """Turn an error of the operating system about the target into a sentence; others pass."""
    try:
        yield
    except FeatbankError:
        raise
    except OSError as error:
        if error.filename is not None:
            about = Path(os.fsdecode(error.filename))
            if not (about.is_relative_to(target.parent) or target.is_relative_to(about.parent)):
                raise
        if error.errno in FULL:
            cure = "Make room, then run the same command again."
        elif error.errno in FORBIDDEN | {errno.ENOENT}:
            cure = "Choose a place where files can be written."
        else:
            cure = "Check the disk or the network share, or choose another place."
        refusal = OutputError(
            f"{who}: cannot write {str(target)!r}: {describe_error(error)}. What was there before is intact. {cure}"
        )
        refusal.errno = error.errno
        raise refusal from error


def _new_file(folder: Path, suffix: str) -> tuple[Path, int]:
    """Make a hidden file and hold its lock; a sweep that comes in between takes the first attempt away."""
    while True:
        path = folder / f".featbank-{uuid.uuid4().hex}{suffix}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _hold(descriptor):
            return path, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _holder(folder: Path) -> Iterator[Path]:
    """Make a hidden folder for what is new, hold its lock, and remove what is left of it."""
    sweep(folder)
    descriptor = -1
    while descriptor < 0:
        holder = folder / f".featbank-{uuid.uuid4().hex}"
        holder.mkdir()
        with contextlib.suppress(FileNotFoundError):  # swept before it had a lock
            descriptor = os.open(holder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            if not _hold(descriptor):
                os.close(descriptor)
                descriptor = -1
    try:
        (holder / _NEW).mkdir()
        yield holder / _NEW
    finally:
        with contextlib.suppress(OSError):  # the next sweep tries again
            _clear(holder)
        os.close(descriptor)


def _hold(descriptor: int) -> bool:
    """Lock a hidden file for as long as this process lives; False if a sweep has taken it."""
    if os.name == "posix":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks: nobody sweeps there
    return os.fstat(descriptor).st_nlink > 0


def _try_writing(folder: Path) -> None:
    """Make and remove a hidden file: permissions lie on network folders and under root, only a file tells."""
    with scratch_file(folder):
        pass


def _is_movable(folder: Path) -> bool:
    """Tell whether a folder may take another's name: not the current one, no mount point, not in a read-only one."""
    if not folder.exists():
        return True
    is_current = folder.samefile(Path.cwd())
    return not is_current and not folder.is_mount() and os.access(folder.parent, os.W_OK | os.X_OK)


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it, on the disk."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _list(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208 (names alone are needed)


def _read_marker(folder: Path) -> tuple[str, frozenset[str]] | None:
    """Return the kind of a folder and the names of its files; None if it has no marker, or a damaged one."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return str(content["kind"]), frozenset(map(str, content["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_marker(folder: Path, kind: FolderKind, names: Set[str]) -> None:
    content = {"featbank": __version__, "kind": kind.name, "files": sorted(names)}
    (folder / MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _own(folder: Path, kind: FolderKind) -> frozenset[str]:
    """Return the names of the files in a folder of this kind that featbank wrote."""
    if not folder.is_dir():
        return frozenset()
    kind_name, names = _read_marker(folder) or (kind.name, frozenset(kind.own(folder)))
    with os.scandir(folder) as entries:
        files = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    return names & files if kind_name == kind.name else frozenset()


def _foreign(folder: Path, kind: FolderKind) -> list[str]:
    """Return the names of what featbank did not write, sorted; a folder or a link under a name of ours is among it."""
    known = _own(folder, kind) | kind.shared | _PASSENGERS | {MARKER}
    return [name for name in _list(folder) if name not in known and not _SCRATCH.fullmatch(name)]


def _free(folder: Path, name: str) -> Path:
    """Return a path for a file of this name that would otherwise be overwritten."""
    names = (f"{name}.{number}" for number in itertools.count(1))
    return next(folder / other for other in names if not os.path.lexists(folder / other))


def _swap(new: Path, target: Path, kind: FolderKind, own: frozenset[str]) -> bool:
    """Let two folders swap names, what is not featbank's staying; False, and nothing changed, where that fails."""
    if _read_marker(target) is None:
        _write_marker(target, kind, own)
    others = [name for name in _list(target) if name not in own | {MARKER}]
    for name in others:
        # Shared files are in use: linked, they are there at every moment. Folders cannot be linked.
        with contextlib.suppress(OSError):
            os.link(target / name, new / name, follow_symlinks=False)
    if not _exchange(new, target):
        for name in others:
            (new / name).unlink(missing_ok=True)
        return False
    _sync_or(target.parent, lambda: _exchange(new, target))
    for name in _list(new):
        if name not in own | {MARKER} and not os.path.lexists(target / name):
            (new / name).rename(target / name)
    return True


def _take_name(new: Path, target: Path) -> None:
    """Let what is new have the name of the target, for good or not at all."""
    if not os.path.lexists(target):
        new.rename(target)
        _sync_or(target.parent, lambda: target.rename(new))
    elif new.is_dir() == target.is_dir() and _exchange(new, target):
        _sync_or(target.parent, lambda: _exchange(new, target))
    else:
        new.replace(target)
        sync_folder(target.parent)


def _sync_or(folder: Path, undo: Callable[[], object]) -> None:
    """Wait until the names in a folder are on the disk; if that fails, give them back."""
    try:
        sync_folder(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            undo()
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two files or folders in one step; False where system or file system cannot."""
    rename = (
        getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    )
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBUSY, errno.EXDEV}:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _move_into(new: Path, target: Path, gone: Set[str]) -> None:
    """Move new files into a folder and those that are gone out of it; if one cannot be moved, all move back."""
    old = new.with_name(_OLD)
    old.mkdir()
    moved: list[str] = []
    try:
        # The marker first: whatever a kill leaves, the next run knows the files as ours.
        for name in sorted({*_list(new), *gone}, key=lambda name: (name != MARKER, name)):
            moved.append(name)
            if os.path.lexists(target / name):
                try:
                    os.link(target / name, old / name)
                except OSError:
                    (target / name).rename(old / name)
            (target / name).unlink(missing_ok=True) if name in gone else (new / name).rename(target / name)
        sync_folder(target)
    except BaseException:
        for name in reversed(moved):
            with contextlib.suppress(OSError):
                if (old / name).exists():
                    (old / name).replace(target / name)
                elif name not in gone and not (new / name).exists():
                    (target / name).unlink()
        raise


def _sync_all(folder: Path) -> None:
    """Wait until a folder and all its files are on the disk."""
    for name in _list(folder):
        sync_file(folder / name)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk, where the file system knows how to."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}:
            raise
