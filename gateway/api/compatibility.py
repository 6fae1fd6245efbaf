"""What in one OpenAPI document breaks programs that were written for another. Pure.

Requests: what was accepted is accepted still. Answers: what is given is what was promised. So a request may take more and an answer may
hold more fields, and nothing else; the policy in words is docs/explanation/api-compatibility.md. Where it cannot be told that a
change is harmless (a pattern, another permission), it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.api.document import operations

Json = dict[str, Any]  # Any: JSON
Says = Iterator[str]

_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME: Final = ("pattern", "format", "multipleOf", "const", "uniqueItems")
_ANY: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def breaking(released: Json, now: Json) -> list[str]:
    """Each change that breaks somebody, in one sentence with its place."""
    return list(dict.fromkeys(_operations(released, now)))


def _operations(released: Json, now: Json) -> Says:
    today = {(path, method): said for path, method, said in operations(now)}
    for path, method, old in operations(released):
        where = f"{method.upper()} {path}"
        new = today.get((path, method))
        if new is None:
            yield f"{where}: it is gone"
            continue
        if old["operationId"] != new["operationId"]:
            yield f"{where}: its id was {old['operationId']} and is {new['operationId']}"
        yield from _needs(where, old, new)
        compared = _Compared(released, now)
        yield from _parameters(where, old, new, compared)
        yield from _body(where, old, new, compared)
        yield from _answers(where, old, new, compared)


def _needs(where: str, old: Json, new: Json) -> Says:
    for key in ("x-holdfast-permission", "x-holdfast-reach"):
        if new.get(key) not in (old.get(key), None, "public"):
            yield f"{where}: {key.removeprefix('x-holdfast-')} was {old.get(key, 'none')} and is {new[key]}: who might may not any more"


@dataclass(frozen=True, slots=True)
class _Compared:
    """The two documents, to follow references in."""

    old: Json
    new: Json

    def whole(self, document: Json, part: Json) -> Json:
        while "$ref" in part:
            found: Any = document  # Any: JSON
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            part = found
        return part


def _parameters(where: str, old: Json, new: Json, compared: _Compared) -> Says:
    before = {(one["in"], one["name"].lower()): one for one in old.get("parameters", [])}
    after = {(one["in"], one["name"].lower()): one for one in new.get("parameters", [])}
    for (place, name), one in after.items():
        if one.get("required") and not before.get((place, name), {}).get("required"):
            yield f"{where}: {place} parameter {name} is required, and was not"
    for key, one in before.items():
        named = f"{where}: {key[0]} parameter {key[1]}"
        if key not in after:
            yield f"{named} is gone"
            continue
        then, since = one.get("schema", {}), after[key].get("schema", {})
        if then.get("default") != since.get("default"):
            yield f"{named}: its default was {then.get('default')!r} and is {since.get('default')!r}"
        yield from _taken(named, then, since, compared, frozenset())


def _body(where: str, old: Json, new: Json, compared: _Compared) -> Says:
    before, after = old.get("requestBody", {}), new.get("requestBody", {})
    if after.get("required") and not before.get("required"):
        yield f"{where}: a body is required, and was not"
    for kind, content in before.get("content", {}).items():
        if kind not in after.get("content", {}):
            yield f"{where}: a body of {kind} is not taken any more"
        else:
            yield from _taken(f"{where}: body", content.get("schema", {}), after["content"][kind].get("schema", {}), compared, frozenset())


def _answers(where: str, old: Json, new: Json, compared: _Compared) -> Says:
    before, after = old["responses"], new["responses"]
    good = [status for status in before if status.startswith("2")]
    for status in {status for status in after if status.startswith("2")} - set(good):
        yield f"{where}: it may answer {status}, which it never did"
    for status in good:
        if status not in after:
            yield f"{where}: it never answers {status} any more"
            continue
        one, other = compared.whole(compared.old, before[status]), compared.whole(compared.new, after[status])
        for kind, content in one.get("content", {}).items():
            if kind not in other.get("content", {}):
                yield f"{where}: {status} is not given as {kind} any more"
            else:
                then, since = content.get("schema", {}), other["content"][kind].get("schema", {})
                yield from _given(f"{where}: {status}", then, since, compared, frozenset())


# ------------------------------------------------------------------------------------------------ what is taken


_Seen = frozenset[tuple[str, str]]
_Rule = Callable[[str, Json, Json, _Compared, _Seen], Says]


def _taken(where: str, old: Json, new: Json, compared: _Compared, seen: _Seen) -> Says:
    """Whatever ``old`` accepted, ``new`` must."""
    pair = (old.get("$ref", ""), new.get("$ref", ""))
    if all(pair) and pair in seen:
        return
    seen |= {pair} if all(pair) else frozenset()
    old, new = compared.whole(compared.old, old), compared.whole(compared.new, new)
    if "anyOf" in old or "anyOf" in new:
        yield from _branches(where, old, new, compared, seen, _taken, "takes")
        return
    if lost := _types(old) - _wide(_types(new)):
        yield f"{where}: it takes no {', '.join(sorted(lost))} any more"
        return
    yield from _limits(where, old, new)
    yield from _taken_object(where, old, new, compared, seen)
    if "items" in new:
        yield from _taken(f"{where}[]", old.get("items", {}), new["items"], compared, seen)


def _taken_object(where: str, old: Json, new: Json, compared: _Compared, seen: _Seen) -> Says:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{where}.{name}: it is required, and was not"
    for name, one in before.items():
        if name not in after:
            yield f"{where}.{name}: it is not taken any more"
        else:
            yield from _taken(f"{where}.{name}", one, after[name], compared, seen)
            if compared.whole(compared.old, one).get("default") != compared.whole(compared.new, after[name]).get("default"):
                yield f"{where}.{name}: its default has changed"
    if (
        new.get("additionalProperties") is False
        and old.get("additionalProperties") is not False
        and (before or old.get("type") == "object")
    ):
        yield f"{where}: other fields are refused, and were not"
    if isinstance(new.get("additionalProperties"), dict):
        extra = old.get("additionalProperties")
        yield from _taken(f"{where}.*", extra if isinstance(extra, dict) else {}, new["additionalProperties"], compared, seen)


def _limits(where: str, old: Json, new: Json) -> Says:
    if "enum" in new and (lost := [one for one in old.get("enum", ["anything"]) if one not in new["enum"]]):
        yield f"{where}: it takes {', '.join(map(repr, lost))} no more"
    for key in _LEAST:
        if key in new and (key not in old or new[key] > old[key]):
            yield f"{where}: {key} was {old.get(key, 'not there')} and is {new[key]}"
    for key in _MOST:
        if key in new and (key not in old or new[key] < old[key]):
            yield f"{where}: {key} was {old.get(key, 'not there')} and is {new[key]}"
    for key in _SAME:
        if key in new and new[key] != old.get(key):
            yield f"{where}: {key} was {old.get(key, 'not there')!r} and is {new[key]!r}"


# ------------------------------------------------------------------------------------------------ what is given


def _given(where: str, old: Json, new: Json, compared: _Compared, seen: _Seen) -> Says:
    """Whatever ``new`` gives, ``old`` promised; further fields are no harm."""
    pair = (old.get("$ref", ""), new.get("$ref", ""))
    if all(pair) and pair in seen:
        return
    seen |= {pair} if all(pair) else frozenset()
    old, new = compared.whole(compared.old, old), compared.whole(compared.new, new)
    if "anyOf" in old or "anyOf" in new:
        yield from _branches(where, old, new, compared, seen, _given, "gives")
        return
    if more := _types(new) - _wide(_types(old)):
        yield f"{where}: it gives {', '.join(sorted(more))}, which it never did"
        return
    if "enum" in old and (more_values := [one for one in new.get("enum", ["anything"]) if one not in old["enum"]]):
        yield f"{where}: it gives {', '.join(map(repr, more_values))}, which it never did"
    yield from _given_object(where, old, new, compared, seen)
    if "items" in old:
        yield from _given(f"{where}[]", old["items"], new.get("items", {}), compared, seen)


def _given_object(where: str, old: Json, new: Json, compared: _Compared, seen: _Seen) -> Says:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(set(old.get("required", ())) - set(new.get("required", ()))):
        if name in after:
            yield f"{where}.{name}: it may be left out, and was always there"
    for name, one in before.items():
        if name not in after:
            yield f"{where}.{name}: it is gone"
        else:
            yield from _given(f"{where}.{name}", one, after[name], compared, seen)
    if isinstance(old.get("additionalProperties"), dict):
        extra = new.get("additionalProperties")
        yield from _given(f"{where}.*", old["additionalProperties"], extra if isinstance(extra, dict) else {}, compared, seen)


# ------------------------------------------------------------------------------------------------ both


def _branches(where: str, old: Json, new: Json, compared: _Compared, seen: _Seen, rule: _Rule, verb: Literal["takes", "gives"]) -> Says:
    """Each branch of the side that must fit fits some branch of the other."""
    ours, theirs = old.get("anyOf", [old]), new.get("anyOf", [new])
    must, may = (ours, theirs) if verb == "takes" else (theirs, ours)
    for one in must:
        tries = [list(rule(where, *((one, other) if verb == "takes" else (other, one)), compared, seen)) for other in may]
        if all(tries):
            yield from min(tries, key=len) if len(must) == len(may) == 1 or len(tries) == 1 else [_said(where, one, verb)]


def _said(where: str, one: Json, verb: str) -> str:
    what = one.get("$ref", "").rpartition("/")[2] or one.get("type") or one.get("enum")
    return f"{where}: it takes no {what} any more, or less of it" if verb == "takes" else f"{where}: it gives {what}, which it never did"


def _types(schema: Json) -> frozenset[str]:
    said = schema.get("type")
    if said is None:
        return frozenset(map(_type_of, schema["enum"])) if "enum" in schema else _ANY
    return frozenset(said if isinstance(said, list) else [said])


def _type_of(value: Any) -> str:  # Any: JSON
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _wide(types: frozenset[str]) -> frozenset[str]:
    """A whole number is a number too."""
    return types | {"integer"} if "number" in types else types
