"""Text to plain values: YAML 1.2 (and so JSON), with the line of everything, and refusing what YAML hides.

It is built on libyaml's events and not on its loader, because the loader silently takes the last of two equal keys, turns
``on`` into a bool and ``12:30`` into 750 (YAML 1.1), and follows aliases and nesting without a bound. Here a key that
stands twice is a problem, scalars are resolved by the YAML 1.2 core schema, and every length has a limit.

What is ambiguous between the two versions (``012``, ``1_000``, ``.inf``) stays text: where text is not what was
expected, the loader says so with advice; where it is, the user meant the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NoReturn

import yaml

from protocols.contract import Problem

MAX_BYTES: Final = 16 * 1024**2
MAX_DEPTH: Final = 64
MAX_NODES: Final = 2_000_000
"""Values after all aliases are followed: about 150,000 tags."""
MAX_PROBLEMS: Final = 1000
"""More than this nobody reads."""
MAX_DIGITS: Final = 40

Plain = Any  # what documents are made of: dict, list, str, int, float, bool, None; the Structs say what is allowed where
Path = tuple[str | int, ...]


class Located(Problem, frozen=True):
    """A problem whose place in the document is known. ``line`` counts from 1; 0 is unknown."""

    line: int = 0


@dataclass(slots=True)
class Document:
    """The plain values of one document, and the line of each entry of each container."""

    value: Plain = None
    lines: dict[int, dict[str | int, int]] = field(default_factory=dict)
    """By ``id()`` of the container, which ``value`` keeps alive; then by key or index."""

    def line(self, path: Path) -> int:
        """The line of what ``path`` names, or of the innermost container on the way that is there; 0 if unknown."""
        value, line = self.value, 0
        for step in path:
            line = self.lines.get(id(value), {}).get(step, line)
            try:
                value = value[step]
            except (LookupError, TypeError):
                break
        return line


class _Stop(Exception):
    """Reading cannot go on."""

    def __init__(self, problem: Located) -> None:
        self.problem = problem


def parse(raw: bytes) -> tuple[Document | None, list[Located]]:
    """The document in ``raw`` (UTF-8), and what is wrong with it as YAML or JSON; None where it cannot be read at all.

    A document that is JSON comes without lines: :func:`parse_yaml` gives them.
    """
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and (document := _parse_json(raw)) is not None:
        return document, []
    return parse_yaml(raw)


def parse_yaml(raw: bytes) -> tuple[Document | None, list[Located]]:
    """As :func:`parse`, always as YAML."""
    try:
        text = _decode(raw)
        reader = _Reader()
        reader.read(text)
        return reader.document, reader.problems
    except _Stop as stop:
        return None, [stop.problem]


def show(path: Path) -> str:
    """``("connections", 0, "name")`` as ``connections[0].name``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[\w-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{quote(step)}]"
    return text


def steps(path: str) -> Path:
    """The inverse of :func:`show`; parts that it cannot read are left out."""
    found: list[str | int] = []
    for index, text, name in re.findall(r"\[(\d+)\]|\[(\"(?:[^\"\\]|\\.)*\")\]|([\w-]+)", path):
        found.append(int(index) if index else json.loads(text) if text else name)
    return tuple(found)


def reading_order(path: str) -> tuple[tuple[int, str], ...]:
    """Sorts paths as a reader expects: ``tags[2]`` before ``tags[10]``."""
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in steps(path))


def quote(text: str, limit: int = 60) -> str:
    """``text`` as one short printable piece, in quotes."""
    return json.dumps(text if len(text) <= limit else text[: limit - 3] + "...")


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise _Stop(Located("", f"the document has more than {MAX_BYTES} bytes", "split the site over several gateways"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _Stop(Located("", "the document is not UTF-8 text", "save it as UTF-8", line=line)) from None


# JSON, the short way: five times faster, and libyaml does not join surrogate pairs. It has no lines, so a document with a
# problem of its own (a key that stands twice, too deep) is read again as YAML, which it also is.


def _parse_json(raw: bytes) -> Document | None:
    try:
        text = _decode(raw)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_bounded_int)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is not text
    except (ValueError, RecursionError, _Stop):
        return None
    return Document(value) if _depth_fits(value) else None


def _unique(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError
    return entries


def _refuse(_constant: str) -> NoReturn:
    raise ValueError


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS or not _fits(whole := int(text)):
        raise ValueError
    return whole


def _fits(whole: int) -> bool:
    return -(2**63) <= whole < 2**64


def _depth_fits(value: Plain) -> bool:
    level: list[Plain] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)]
        if not level:
            return True
    return False


def _inner(container: dict[str, Plain] | list[Plain]) -> Iterable[Plain]:
    return container.values() if isinstance(container, dict) else container


# Scalars, by the YAML 1.2 core schema (10.3.2), less the infinities and leading zeros: see the top.

_WORDS: Final[dict[str, Plain]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT: Final = re.compile(rf"[-+]?(?:0|[1-9][0-9]{{0,{MAX_DIGITS}}})")
_BASED: Final = re.compile(r"0o[0-7]{1,24}|0x[0-9a-fA-F]{1,32}")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,3})?")
_CORE: Final = "tag:yaml.org,2002:"


@lru_cache(maxsize=4096)
def resolve(text: str) -> Plain:
    """What a plain (unquoted) scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text) or _BASED.fullmatch(text):
        whole = int(text, 0)
        return whole if _fits(whole) else text
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text) and abs(number := float(text)) != float("inf"):
        return number
    return text


@dataclass(slots=True)
class _Frame:
    """A container that is being filled."""

    container: dict[str, Plain] | list[Plain]
    lines: dict[str | int, int]
    began: int
    """Count of nodes when it began."""
    line: int
    anchor: str | None
    key: str | None = None
    """The key whose value comes next."""
    twice: bool = False
    merges: list[Plain] = field(default_factory=list)


class _Reader:
    """libyaml's events to a Document. One use."""

    def __init__(self) -> None:
        self.document = Document()
        self.problems: list[Located] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Plain, int]] = {}
        self._open_anchors: set[str] = set()
        self._nodes = 0
        self._documents = 0
        self._on: dict[type[yaml.Event], Callable[[Any], None]] = {  # Any: each handler takes its own event
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._begin,
            yaml.SequenceStartEvent: self._begin,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._begin_document,
        }

    def read(self, text: str) -> None:
        on = self._on
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                if (handler := on.get(type(event))) is not None:
                    handler(event)
        except yaml.MarkedYAMLError as error:
            raise _Stop(_syntax_problem(error)) from None
        except yaml.YAMLError as error:
            reason = getattr(error, "reason", "it cannot be read")
            raise _Stop(Located("", f"this is not YAML: {reason}", "remove control characters; save the file as UTF-8 text")) from None

    def _begin_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            line = _line(event)
            raise _Stop(Located("", "a second document begins here", "a site is one document: remove the line ---", line=line))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        line = _line(event)
        text = event.value
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and isinstance(frame.container, dict):
            self._count(1, line)
            if event.anchor is not None:
                self._anchors[event.anchor] = (text, 1)
            self._key(frame, text, line)
            return
        value = resolve(text) if event.implicit[0] else text
        if event.tag is not None:
            value = self._tagged(event.tag, text, line)
        self._count(1, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._place(value, line)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        line = _line(event)
        if len(self._stack) >= MAX_DEPTH:
            raise _Stop(Located(self._path(), f"nested more than {MAX_DEPTH} deep", "nothing in a site is so deep", line=line))
        if event.tag is not None and event.tag not in (_CORE + "map", _CORE + "seq"):
            self._tagged(event.tag, "", line)
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._stack.append(_Frame({} if mapping else [], {}, self._nodes, line, event.anchor))
        self._count(1, line)
        if event.anchor is not None:
            self._open_anchors.add(event.anchor)

    def _end(self, _event: yaml.Event) -> None:
        frame = self._stack.pop()
        if frame.merges and isinstance(frame.container, dict):
            self._merge(frame, frame.container)
        self.document.lines[id(frame.container)] = frame.lines
        if frame.anchor is not None:
            self._open_anchors.discard(frame.anchor)
            self._anchors[frame.anchor] = (frame.container, self._nodes - frame.began)
        self._place(frame.container, frame.line)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        if event.anchor in self._open_anchors:
            raise _Stop(Located(self._path(), f"*{event.anchor} contains itself", "refer only to what is complete", line=line))
        if event.anchor not in self._anchors:
            advice = f"write &{event.anchor} at the value that is meant, above this line; a text that begins with * needs quotes"
            raise _Stop(Located(self._path(), f"*{event.anchor} refers to nothing", advice, line=line))
        value, size = self._anchors[event.anchor]
        self._count(size, line)
        self._place(value, line)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            advice = "split the site over several gateways, or look for aliases (*name) of aliases"
            raise _Stop(Located("", f"the document holds more than {MAX_NODES} values", advice, line=line))

    def _place(self, value: Plain, line: int) -> None:
        if not self._stack:
            self.document.value = value
            return
        frame = self._stack[-1]
        if isinstance(frame.container, list):
            frame.lines[len(frame.container)] = line
            frame.container.append(value)
        elif frame.key is None:
            self._key(frame, value, line)
        else:
            key, frame.key = frame.key, None
            if frame.twice:
                frame.twice = False
            elif key == "<<":
                frame.merges.append(value)
            else:
                frame.container[key] = value

    def _key(self, frame: _Frame, key: Plain, line: int) -> None:
        if not isinstance(key, str):
            self._say("a key is a list or a mapping", "keys are plain text; text that begins with [ or { needs quotes", line)
            key, frame.twice = "", True
        elif key in frame.lines and key != "<<":
            frame.key = key
            self._say(f"the key stands twice; first in line {frame.lines[key]}", "remove one of the two", line)
            frame.twice = True
        else:
            frame.lines[key] = line
        frame.key = key

    def _merge(self, frame: _Frame, container: dict[str, Plain]) -> None:
        """``<<: *name`` (YAML's merge key): entries that stand here win, then the earlier source."""
        for merged in frame.merges:
            for source in merged if isinstance(merged, list) else [merged]:
                if not isinstance(source, dict):
                    self._say("<< needs a mapping or a list of mappings", "write <<: *name", frame.line)
                    continue
                lines = self.document.lines.get(id(source), {})
                for key, value in source.items():
                    if key not in container:
                        container[key] = value
                        frame.lines[key] = lines.get(key, frame.line)
        frame.lines.pop("<<", None)

    def _tagged(self, tag: str, text: str, line: int) -> Plain:
        if tag == _CORE + "str" or tag == "!":
            return text
        if tag.removeprefix(_CORE) not in ("int", "float", "bool", "null"):
            self._say(f"the YAML tag {quote(tag)} is not allowed", "remove it: a site holds plain values only", line)
        return resolve(text)

    def _say(self, message: str, advice: str, line: int) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Located(self._path(), message, advice, line=line))

    def _path(self) -> str:
        path: list[str | int] = []
        for frame in self._stack:
            if isinstance(frame.container, list):
                path.append(len(frame.container))
            elif frame.key is not None:
                path.append(frame.key)
        return show(tuple(path))


_SYNTAX_ADVICE: Final = (
    ("cannot start any token", "indent with spaces, never tabs; put text that begins with @ ` % & * ! | > in quotes"),
    ("a tab character", "indent with spaces, never tabs"),
    ("mapping values are not allowed", "put text that holds ': ' in quotes, and check the indentation of this line"),
    ("did not find expected key", "check that this line is indented like its neighbours"),
    ("did not find expected '-' indicator", "begin each entry of the list with a dash, indented like its neighbours"),
    ("did not find expected ',' or", "a comma or a closing bracket is missing in this line or above it"),
    ("could not find expected ':'", "each key needs a colon and a space"),
    ("unknown escape character", "in double quotes a backslash is special: double it or use single quotes"),
    ("unexpected end of stream", "a closing quote is missing"),
    ("control characters are not allowed", "remove the control character"),
)


def _syntax_problem(error: yaml.MarkedYAMLError) -> Located:
    mark = error.problem_mark or error.context_mark
    reason = error.problem or "it cannot be read"
    advice = next((advice for sign, advice in _SYNTAX_ADVICE if sign in reason), "check the indentation, quotes and brackets here")
    return Located("", f"this is not YAML: {reason}", advice, line=mark.line + 1 if mark else 0)
