"""What differs between two documents, as a person reads it: paths, and what stood there before and after. Pure.

Entries of a list that have names are the same entry wherever they stand: ``connections[hall].devices[meter-1].scan_s``. Values
that are long are told by their length, and a list of differences has an end, so that a diff stays small whatever was sent.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from typing import Any, Final

from gateway.config.document import Plain
from holdfast.shapes.revisions import Difference

MOST: Final = 500
"""Differences told one by one."""
LONGEST_VALUE: Final = 2000
"""Characters of JSON; a longer value is told by its length."""
MOST_LINES: Final = 10_000
"""Lines of one text; of longer ones no text is compared."""
LONGEST_TEXT: Final = 256 * 1024


def differences(before: Plain, after: Plain) -> tuple[list[Difference], int]:
    """At most MOST differences, and how many there are beyond."""
    found: list[Difference] = []
    more = 0
    for one in _between(before, after, ""):
        if len(found) < MOST:
            found.append(one)
        else:
            more += 1
    return found, more


def text_difference(before: bytes, after: bytes, before_name: str, after_name: str) -> str:
    """A unified diff of two documents; empty where one is too long to be compared line by line. JSON is compared one value a line."""
    texts = [_lines(one) for one in (before, after)]
    if any(len(one) > MOST_LINES for one in texts):
        return ""
    text = "".join(difflib.unified_diff(texts[0], texts[1], before_name, after_name))
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rpartition("\n")[0] + "\n"


def _lines(raw: bytes) -> list[str]:
    text = raw.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):  # YAML may begin with a brace: it is compared as it stands
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return [line + "\n" for line in text.splitlines()]


def _between(before: Plain, after: Plain, path: str) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _entry(before, after, key, f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _lists(before, after, path)
    elif before != after or type(before) is not type(after):
        yield Difference(path=path, kind="changed", before=_short(before), after=_short(after))


def _entry(before: dict[str, Plain], after: dict[str, Plain], key: str, path: str) -> Iterator[Difference]:
    if key not in after:
        yield Difference(path=path, kind="removed", before=_short(before[key]))
    elif key not in before:
        yield Difference(path=path, kind="added", after=_short(after[key]))
    else:
        yield from _between(before[key], after[key], path)


def _lists(before: list[Plain], after: list[Plain], path: str) -> Iterator[Difference]:
    old, new = _named(before), _named(after)
    if old is None or new is None:
        if before != after:
            yield Difference(path=path, kind="changed", before=_short(before), after=_short(after))
        return
    for name in [*old, *(name for name in new if name not in old)]:
        yield from _entry(old, new, name, f"{path}[{name}]")


def _named(values: list[Plain]) -> dict[str, Plain] | None:
    """The entries by their names; None where one has none or two have the same."""
    named = {one["name"]: one for one in values if isinstance(one, dict) and isinstance(one.get("name"), str)}
    return named if len(named) == len(values) else None


def _short(value: Plain) -> Any:  # Any: JSON
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= LONGEST_VALUE else f"({len(text)} characters)"
