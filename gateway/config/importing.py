"""Tags from a file into a site document, so that a person sees what will change, and comments stay where they are.

The document is not written anew: the lines of the one list of tags are changed and all others are kept, so what comes out is a
patch. Where that list is written in a way that cannot be changed line by line (inside braces, by an alias, from a template) the
import says so and changes nothing. Pure, but for :func:`put`.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.document import Plain, parse_yaml
from protocols.contract import Offer

MOST_ROWS: Final = 1_000_000
MOST_BYTES: Final = 64 * 1024**2
MAX_NAME: Final = 255
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""First letters that make a spreadsheet run a cell as a formula."""
_NUMBER: Final = re.compile(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?")
IGNORED: Final = ("value", "description", "path")
"""Columns that tell a person what a value is, and are no option of a tag."""


class Mode(Enum):
    CREATE = "create"
    OVERWRITE = "overwrite"
    DELETE = "delete"
    MERGE_SAFE = "merge-safe"


MODES: Final = {mode.value: mode for mode in Mode}


class Unfit(Exception):
    """The file or the document does not fit. The text says why, and what to do."""


Row = dict[str, Plain]


@dataclass(slots=True)
class Import:
    """What an import comes to."""

    before: str
    text: str
    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """What a person should know, a line each."""

    @property
    def summary(self) -> str:
        return f"{len(self.created)} created, {len(self.changed)} changed, {len(self.removed)} removed, {len(self.kept)} kept"

    def patch(self, name: str) -> str:
        """The difference, for ``patch``; empty where there is none."""
        lines = difflib.unified_diff(self.before.splitlines(keepends=True), self.text.splitlines(keepends=True), name, name)
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def tag_name(offer: Offer) -> str:
    """A name for the tag of an offer: its path, without what may not be in a name."""
    return re.sub(r"[+#\x00-\x1f\x7f]", "_", offer.path)[-MAX_NAME:] or "value"


def harmless(cell: str) -> str:
    """A cell that no spreadsheet runs, on one line: what a server says may begin with = as well."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(cell))
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


# ---------------------------------------------------------------------------------------------------- the file


def read_rows(raw: bytes, name: str) -> list[Row]:
    """The tags in a CSV file with a heading, or in a YAML document ``tags: [...]``. Raises Unfit."""
    if len(raw) > MOST_BYTES:
        raise Unfit(f"{name} has more than {MOST_BYTES} bytes: split it")
    rows = _yaml_rows(raw, name) if name.endswith((".yaml", ".yml", ".json")) else _csv_rows(raw, name)
    seen: set[str] = set()
    for at, row in enumerate(rows, start=1):
        missing = [key for key in ("name", "at", "kind") if row.get(key) in (None, "")]
        if missing:
            raise Unfit(f"{name}: tag {at} has no {' and no '.join(missing)}: fill it in, or leave the row out")
        if str(row["name"]) in seen:
            raise Unfit(f"{name}: two tags are called {row['name']!r}: give each its own name")
        seen.add(str(row["name"]))
    return rows


def _csv_rows(raw: bytes, name: str) -> list[Row]:
    try:
        text = raw.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), strict=True)
        heading = [key for key in reader.fieldnames or () if key]
        if "name" not in heading or "at" not in heading:
            raise Unfit(f"{name}: the first line must name the columns, name and at among them, as holdfast browse writes it")
        return [row for each in reader if (row := _csv_row(each)) is not None]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unfit(f"{name} cannot be read as CSV: {error}: save it as CSV, UTF-8, separated by commas") from None


def _csv_row(cells: Mapping[str | None, Any]) -> Row | None:  # Any: what csv gives, text but for cells without a heading
    """None for a value that cannot be a tag, as browse lists it: without a kind."""
    row: Row = {}
    for key, cell in cells.items():
        if key is None or key in IGNORED or not isinstance(cell, str) or cell == "":
            continue
        text = cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
        row[key] = _cell(key, text)
    return row if "kind" in row else None


def _cell(key: str, text: str) -> Plain:
    if key in ("name", "at", "kind", "unit"):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _NUMBER.fullmatch(text):
        try:
            return float(text) if any(letter in text for letter in ".eE") else int(text)
        except ValueError:
            return text
    return text


def _yaml_rows(raw: bytes, name: str) -> list[Row]:
    document, problems = parse_yaml(raw)
    if document is None or problems:
        raise Unfit(f"{name}: line {problems[0].line}: {problems[0].message}: {problems[0].advice}")
    value = document.value
    tags = value.get("tags") if isinstance(value, dict) else value
    if not isinstance(tags, list) or not all(isinstance(row, dict) for row in tags):
        raise Unfit(f"{name} holds no list of tags: write tags: and the tags below, as holdfast browse --format yaml does")
    return [dict(row) for row in tags]


# ---------------------------------------------------------------------------------------------------- the document


@dataclass(frozen=True)
class _Entry:
    """One tag as it stands in the document: its lines, and what it says."""

    first: int
    end: int
    """One past its last line."""
    values: Row


@dataclass(frozen=True)
class _List:
    """The list of a device's tags."""

    entries: tuple[_Entry, ...]
    indent: int
    """Column of its dashes."""
    insert_at: int
    """Line before which new entries go."""
    opening: tuple[int, str] | None
    """A line that must be replaced for the list to begin: ``tags: []``, or where there is no ``tags`` yet."""


def plan(raw: bytes, connection: str, device: str, rows: Sequence[Row], mode: Mode) -> Import:
    """What taking ``rows`` into ``device`` of ``connection`` makes of the document ``raw``. Raises Unfit."""
    document, problems = parse_yaml(raw)
    if document is None or problems:
        problem = problems[0]
        raise Unfit(f"the site document cannot be read: line {problem.line}: {problem.message}: {problem.advice}")
    text = raw.decode("utf-8-sig")
    found = _find(yaml.compose(text, Loader=yaml.CSafeLoader), connection, device, text)
    plan_ = Import(text, text)
    wanted = {str(row["name"]): row for row in rows}
    edits: list[tuple[int, int, list[str]]] = []
    there: set[str] = set()
    for entry in found.entries:
        name = str(entry.values.get("name"))
        there.add(name)
        edit = _edit(entry, wanted.get(name), name, found.indent, mode, plan_)
        if edit is not None:
            edits.append((entry.first, entry.end, edit))
    fresh = [row for name, row in wanted.items() if name not in there]
    plan_.created = [str(row["name"]) for row in fresh]
    if fresh:
        if found.opening is not None:
            line, opening = found.opening
            edits.append((line, line + (1 if found.insert_at > line else 0), [opening, *(_line(row, found.indent) for row in fresh)]))
        else:
            edits.append((found.insert_at, found.insert_at, [_line(row, found.indent) for row in fresh]))
    plan_.text = _edited(text, edits)
    return plan_


def _edit(entry: _Entry, row: Row | None, name: str, indent: int, mode: Mode, into: Import) -> list[str] | None:
    """The lines that replace an entry; None where it stays."""
    if row is None:
        if mode is Mode.DELETE:
            into.removed.append(name)
            return []
        into.kept.append(name)
        return None
    if mode in (Mode.OVERWRITE, Mode.DELETE):
        if row == entry.values:
            into.kept.append(name)
            return None
        into.changed.append(name)
        return [_line(row, indent)]
    differing = [key for key, value in row.items() if key in entry.values and entry.values[key] != value]
    if differing:
        into.told.append(f"{name}: kept as it is, though the file has another {', '.join(differing)}")
    lacking = {key: value for key, value in row.items() if key not in entry.values and not (key == "writable" and value)}
    if mode is Mode.CREATE or not lacking or differing:
        into.kept.append(name)
        return None
    into.changed.append(name)
    return [_line({**entry.values, **lacking}, indent)]


def _line(row: Row, indent: int) -> str:
    text = yaml.safe_dump(row, default_flow_style=True, allow_unicode=True, width=1_000_000, sort_keys=False).strip()
    return f"{' ' * indent}- {text}\n"


def _edited(text: str, edits: list[tuple[int, int, list[str]]]) -> str:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    for first, end, content in sorted(edits, reverse=True):
        lines[first:end] = content
    return "".join(lines)


def _find(root: yaml.Node | None, connection: str, device: str, text: str) -> _List:
    found = _named(_child(root, "connections"), connection, "connection")
    node = _named(_child(found, "devices"), device, f"device of {connection}")
    if node.flow_style:
        raise Unfit(f"device {device} is written in braces: write it over several lines, with tags: on one of its own")
    tags = _child(node, "tags")
    lines = text.splitlines()
    if tags is None:
        return _no_list(node, lines)
    if not isinstance(tags, yaml.SequenceNode):
        raise Unfit(f"tags of {device} is no list")
    if not tags.value:
        line = tags.start_mark.line
        opening = re.sub(r"tags:\s*\[\s*\]", "tags:", lines[line], count=1)
        if opening == lines[line]:
            raise Unfit(f"line {line + 1}: write tags: [] on one line, or a tag below it")
        return _List((), _column(lines[line], "tags:") + 2, line + 1, (line, opening + "\n"))
    if tags.flow_style:
        raise Unfit(
            f"line {tags.start_mark.line + 1}: the tags of {device} stand in brackets: write each on a line of its own, after a dash"
        )
    return _block(tags, lines)


def _no_list(node: yaml.MappingNode, lines: list[str]) -> _List:
    key = node.value[0][0].start_mark
    last = max(value.end_mark.line for _, value in node.value)
    line = min(last, len(lines) - 1)
    while line > key.line and not lines[line].strip():
        line -= 1
    end = line + 1 if _belongs(lines[line], key.column) else line
    return _List((), key.column + 2, end, (end, f"{' ' * key.column}tags:\n"))


def _belongs(line: str, column: int) -> bool:
    return bool(line.strip()) and len(line) - len(line.lstrip()) >= column


def _block(tags: yaml.SequenceNode, lines: list[str]) -> _List:
    column = tags.start_mark.column
    entries: list[_Entry] = []
    for node in tags.value:
        if not isinstance(node, yaml.MappingNode) or node.start_mark.line < tags.start_mark.line:
            raise Unfit(f"line {node.start_mark.line + 1}: a tag is written by an alias: write it out")
        first = node.start_mark.line
        if not lines[first][column:].startswith("-"):
            raise Unfit(f"line {first + 1}: a tag must begin on the line of its dash")
        end = max(first + 1, _end(node, lines))
        values, _ = parse_yaml("\n".join([" " * (column + 2) + lines[first][column + 2 :], *lines[first + 1 : end]]).encode())
        if values is None or not isinstance(values.value, dict):
            raise Unfit(f"line {first + 1}: this tag uses anchors or aliases: write it out")
        entries.append(_Entry(first, end, values.value))
    return _List(tuple(entries), column, entries[-1].end, None)


def _end(node: yaml.MappingNode, lines: list[str]) -> int:
    """One past the last line that the tag itself stands on: comments and blank lines after it are not its own."""
    end: int = node.end_mark.line + (1 if node.end_mark.column and node.flow_style else 0)
    while end > node.start_mark.line + 1 and (end > len(lines) or not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return end


def _column(line: str, key: str) -> int:
    return max(line.find(key), 0)


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _named(node: yaml.Node | None, name: str, what: str) -> yaml.MappingNode:
    entries = node.value if isinstance(node, yaml.SequenceNode) else []
    names = []
    for entry in entries:
        said = _child(entry, "name")
        if isinstance(entry, yaml.MappingNode) and isinstance(said, yaml.ScalarNode):
            if said.value == name:
                return entry
            names.append(said.value)
    raise Unfit(f"no {what} is called {name!r} in the site document; there is: {', '.join(names) or 'none'}")


def put(site: Path, text: str) -> None:
    """Replace the document at once, with the rights it has."""
    part = site.with_name(f".{site.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(site.stat().st_mode & 0o7777)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(site)
