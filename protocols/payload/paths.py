"""JSONPath (RFC 9535), compiled once: what leads straight to one place becomes a walk over keys, the rest a bounded search.

Regular expressions are not taken (what a device sends could make them run for ever), a descent (``..``) at most once, and
what has to search is searched in small documents only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError
from jsonpath.segments import JSONPathChildSegment, JSONPathRecursiveDescentSegment
from jsonpath.selectors import Filter, IndexSelector, NameSelector, SliceSelector, WildcardSelector

from protocols.payload.trouble import BadPlace, Undecodable

NOTHING: Final = object()
"""What a path gives that leads nowhere."""

Find = Callable[[Any], Any]  # Any: JSON
"""``find(document)`` is the one value, or NOTHING. Raises Undecodable where there are several, or the search is too long."""

COMPILED_AT_MOST: Final = 4096
MAX_SEARCHED: Final = 10_000
"""Values of a document that is searched."""
_ADVICE: Final = "write a JSONPath such as $.env.temperature, $.values[0] or $.sensors[?@.id=='t1'].value"
_ENVIRONMENT: Final = JSONPathEnvironment(strict=True)
_SEARCHES: Final = (NameSelector, IndexSelector, SliceSelector, WildcardSelector, Filter)


@lru_cache(maxsize=COMPILED_AT_MOST)
def compile_path(text: str) -> Find:
    """Raises BadPlace. Equal paths are compiled once: a thousand devices of one description share them."""
    path = _parsed(text)
    keys = straight(path)
    if keys is not None:
        return _walk(keys)

    def find(document: Any) -> Any:  # Any: JSON
        found = _search(path, document, 2)
        if len(found) > 1:
            raise Undecodable(f"{text} finds more than one value")
        return found[0] if found else NOTHING

    return find


def compile_records(text: str, most: int) -> Callable[[Any], list[Any]]:  # Any: JSON
    """``records(document)`` are all values that the path finds, at most ``most``. Raises BadPlace."""
    path = _parsed(text)
    last = path.segments[-1] if path.segments else None
    keys = straight(JSONPath(env=_ENVIRONMENT, segments=path.segments[:-1]))
    if keys is None or not isinstance(last, JSONPathChildSegment) or [*map(type, last.selectors)] != [WildcardSelector]:
        return lambda document: _search(path, document, most)
    walk = _walk(keys)

    def records(document: Any) -> list[Any]:  # Any: JSON
        found = walk(document)
        inside = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        return list(islice(inside, most))

    return records


def straight(path: JSONPath) -> tuple[str | int, ...] | None:
    """The keys of a path that has no other parts than names and indexes (a singular query, 2.3.5.1), else None."""
    keys: list[str | int] = []
    for segment in path.segments:
        if not isinstance(segment, JSONPathChildSegment) or len(segment.selectors) != 1:
            return None
        selector = segment.selectors[0]
        if isinstance(selector, NameSelector):
            keys.append(selector.name)
        elif isinstance(selector, IndexSelector):
            keys.append(selector.index)
        else:
            return None
    return tuple(keys)


def _parsed(text: str) -> JSONPath:
    try:
        path = _ENVIRONMENT.compile(text)
    except (JSONPathError, ValueError, RecursionError) as error:
        raise BadPlace(f"{text!r} is no JSONPath ({str(error).splitlines()[0][:200] if str(error) else 'it is empty'})", _ADVICE) from None
    if not isinstance(path, JSONPath):
        raise BadPlace(f"{text!r} joins several paths", _ADVICE)
    descents = 0
    for segment in path.segments:
        descents += isinstance(segment, JSONPathRecursiveDescentSegment)
        for selector in segment.selectors:
            if not isinstance(selector, _SEARCHES) or (isinstance(selector, Filter) and _is_heavy(str(selector))):
                raise BadPlace(f"{text!r} has a part that is not taken: a function, or a path inside a filter that searches", _ADVICE)
    if descents > 1 or sum(not isinstance(one, NameSelector | IndexSelector) for part in path.segments for one in part.selectors) > 3:
        raise BadPlace(f"{text!r} searches too much", _ADVICE)
    return path


def _is_heavy(condition: str) -> bool:
    """Whether a filter could take longer than its document is big."""
    return any(part in condition for part in ("match(", "search(", "..", "*", "=~")) or "$" in condition or condition.count("?") > 1


def _search(path: JSONPath, document: Any, most: int) -> list[Any]:  # Any: JSON
    if sum(1 for _ in islice(_values(document), MAX_SEARCHED + 1)) > MAX_SEARCHED:
        raise Undecodable(f"the payload has more than {MAX_SEARCHED} values, too many to search with {path}")
    try:
        return [match.obj for match in islice(path.finditer(document), most)]
    except (JSONPathError, TypeError, ValueError, RecursionError) as error:
        raise Undecodable(f"{path} cannot be searched for ({str(error)[:200]})") from None


def _values(document: Any) -> Iterator[Any]:  # Any: JSON
    waiting = [document]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _walk(keys: tuple[str | int, ...]) -> Find:
    if len(keys) == 1 and isinstance(keys[0], str):
        name = keys[0]
        return lambda document: document.get(name, NOTHING) if isinstance(document, dict) else NOTHING

    def find(document: Any) -> Any:  # Any: JSON
        for key in keys:
            if isinstance(document, dict) if isinstance(key, str) else isinstance(document, list) and -len(document) <= key < len(document):
                document = document.get(key, NOTHING) if isinstance(document, dict) else document[key]
            else:
                return NOTHING
        return document

    return find
