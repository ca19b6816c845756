"""Reads the first sheet of a workbook that may take any memory, in a process that exists for it."""

from __future__ import annotations

import io
from typing import Any

MAX_TEXT_BYTES = 1 << 26
MAX_CELLS = 2_000_000
"""What a sheet of scores stays far below."""


def read_sheet(request: object, data: bytes) -> tuple[dict[str, Any], None]:
    """Read the rows that are not empty, with their numbers, in the process that exists for it."""
    try:
        return {"rows": _rows(data)}, None
    except BaseException as error:  # noqa: BLE001 - the library's panics are no exceptions
        return {"refused": f"{type(error).__name__}: {str(error)[:200]}"}, None


def _rows(data: bytes) -> list[tuple[int, list[str]]]:
    from python_calamine import CalamineWorkbook

    sheet = CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0)
    rows: list[tuple[int, list[str]]] = []
    n_cells = n_bytes = 0
    for number, row in enumerate(sheet.to_python(skip_empty_area=False), start=1):
        cells = [_text(value) for value in row]
        n_cells, n_bytes = n_cells + len(cells), n_bytes + sum(map(len, cells))
        if n_cells > MAX_CELLS or n_bytes > MAX_TEXT_BYTES:
            raise ValueError(
                f"its first sheet has more than {MAX_CELLS:,} cells or {MAX_TEXT_BYTES:,} characters"
            )
        if any(cells):
            rows.append((number, cells))
    return rows


def _text(value: object) -> str:
    """Write a cell as a CSV would have it, a whole number without ``.0``."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value).strip()
