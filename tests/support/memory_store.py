"""Copies between the disk and fsspec's store in memory, which stands for any store inside one process."""

from __future__ import annotations

from pathlib import Path

from featbank.remote import RemotePath


def upload(folder: Path, url: str) -> RemotePath:
    """Copy a folder with all its files into a store."""
    place = RemotePath.parse(url)
    for path in folder.rglob("*"):
        if path.is_file():
            (place / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
    return place


def stored(place: RemotePath) -> dict[str, bytes]:
    """Every object below a place by its relative name."""
    found: dict[str, bytes] = {}
    for entry in place.scan():
        if entry.is_dir():
            found |= {f"{entry.name}/{name}": data for name, data in stored(entry.place).items()}
        else:
            found[entry.name] = entry.place.read_bytes()
    return found
