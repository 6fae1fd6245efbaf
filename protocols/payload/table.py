"""CSV (RFC 4180): columns by name or number, the last row or every row."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import Final

from protocols.payload.trouble import BadPlace, Undecodable

MAX_ROWS: Final = 10_000
MAX_CELLS: Final = 100_000
_ROW: Final = re.compile(r"-?[1-9][0-9]{0,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Column:
    """By ``name``, or by ``number`` (from 0) where the name is empty. ``row`` counts data rows from 0, None is every row or the last."""

    name: str
    number: int
    row: int | None

    def of(self, header: dict[str, int], row: list[str]) -> str | None:
        at = header.get(self.name, -1) if self.name else self.number
        return row[at] if 0 <= at < len(row) else None


def compile_column(text: str, *, header: bool) -> Column:
    """``temperature``, ``#2``, ``temperature@3`` (the third row), ``#2@-1`` (the last). Raises BadPlace."""
    name, marked, row = text.rpartition("@")
    if not marked:
        name, row = text, ""
    if marked and _ROW.fullmatch(row) is None:
        raise BadPlace(f"{text!r} has no row after @", "write a row's number from 1, or from -1 for the last")
    place = None if not marked else int(row) - 1 if int(row) > 0 else int(row)
    if name.startswith("#"):
        if not name[1:].isdecimal() or not name.isascii() or not 1 <= int(name[1:7]) <= 10_000:
            raise BadPlace(f"{text!r} is no number of a column", "write #1 for the first column")
        return Column("", int(name[1:]) - 1, place)
    if not name:
        raise BadPlace("no column is said", "write the column's name, or #number")
    if not header:
        raise BadPlace(f"{text!r} is a name, and csv_header is false", "write the column's number (#1 is the first)")
    return Column(name, -1, place)


def read_rows(payload: bytes, delimiter: str, *, header: bool) -> tuple[dict[str, int], list[list[str]]]:
    """The header's columns by name, and the rows; empty lines are left out. Raises Undecodable."""
    if payload.count(delimiter.encode()) > MAX_CELLS or payload.count(b"\n") + payload.count(b"\r") > 2 * MAX_ROWS:
        raise Undecodable(f"the payload has more than {MAX_ROWS} rows or {MAX_CELLS} cells")
    try:
        text = payload.decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Undecodable(f"the payload is no CSV ({str(error)[:200]})") from None
    if not header:
        return {}, rows
    if not rows:
        raise Undecodable("the payload has no header line")
    return {name.strip(): at for at, name in reversed(list(enumerate(rows[0])))}, rows[1:]
