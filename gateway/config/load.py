"""A document to a :class:`Site`, or everything that is wrong with it at once.

A good document takes the short way: msgspec converts it in one go. msgspec stops at the first error, so a document that
it refuses is walked along the Structs, each field on its own: unknown keys, missing keys, wrong types and limits, every one
with its path, its line and advice. msgspec stays the only judge of what is right; the walk finds where and says it well.

No value is repeated where a secret reference is expected: somebody may have written the secret itself.
"""

from __future__ import annotations

import difflib
import enum
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path as FilePath
from typing import Annotated, Any, Final

import msgspec

from gateway.config.document import MAX_BYTES, MAX_PROBLEMS, Document, Located, Path, Plain, parse, parse_yaml, quote, show, steps
from gateway.config.document import resolve as resolve_scalar
from gateway.config.drivers import Broken, Drivers, installed
from gateway.config.model import Site
from protocols.contract import Problem
from protocols.secret import FromCredential, FromEnv, FromFile

SECRETS: Final = frozenset((FromFile, FromEnv, FromCredential))
TypeForm = Any  # a type as annotations write it: a class, Annotated, a union, a generic alias

SYNONYMS: Final = {
    "address": "at", "register": "at", "offset": "at", "slave": "unit_id", "slave_id": "unit_id", "unit": "unit_id", "device_id": "unit_id",
    "datatype": "kind", "data_type": "kind", "type": "kind", "interval": "scan_s", "poll": "scan_s", "period": "scan_s", "cycle": "scan_s",
    "scan_rate": "scan_s", "polling_interval": "scan_s", "ip": "host", "hostname": "host", "server": "host", "url": "host",
    "serial": "serial_port", "device": "serial_port", "tty": "serial_port", "factor": "scale", "multiplier": "scale", "points": "tags",
    "registers": "tags", "slaves": "devices", "hysteresis": "deadband", "user": "username", "ca": "ca_file", "cert": "cert_file",
    "key": "key_file", "id": "name", "ssl": "tls",
}  # fmt: skip
"""What other products call our keys."""

_SENSITIVE: Final = re.compile("(?i)password|passphrase|secret|token|credential")
"""Keys whose values are never repeated, also where a driver did not make them secret references."""


def load(source: FilePath | str | bytes, *, drivers: Drivers | None = None) -> tuple[Site | None, list[Problem]]:
    """The site in a file (a path) or in bytes, or None and every problem, sorted by line. Touches no file but ``source``."""
    if isinstance(source, bytes):
        return load_bytes(source, drivers=drivers)
    try:
        with FilePath(source).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return None, [
            Located("", f"{source} cannot be read: {reason}", "check the path and who may read it; holdfast sample prints a start")
        ]
    return load_bytes(raw, drivers=drivers)


def load_bytes(raw: bytes, *, drivers: Drivers | None = None) -> tuple[Site | None, list[Problem]]:
    """As :func:`load`."""
    drivers = installed() if drivers is None else drivers
    document, problems = parse(raw)
    if document is None:
        return None, [*problems]
    site = None if problems else _convert(document.value, drivers)
    if site is not None:
        return site, []
    walk = _Walk(drivers)
    walk.site(document.value)
    if not document.lines:  # JSON: it has lines when read as YAML
        document = parse_yaml(raw)[0] or document
    found = [*problems, *(_located(problem, document) for problem in walk.problems)]
    return None, [*_in_order(found)]


def locate(problems: list[Problem], source: FilePath | str | bytes) -> list[Problem]:
    """``problems`` of :func:`check` with the lines of the document that they are about; as they are if it cannot be read."""
    try:
        raw = source if isinstance(source, bytes) else FilePath(source).read_bytes()
    except OSError:
        return [*problems]
    document, _ = parse_yaml(raw)
    return [*problems] if document is None else [_located(problem, document) for problem in problems]


def resolve(path: str, base: FilePath) -> FilePath:
    """A path written in a site document, as a path on this machine. ``base`` is the document's folder."""
    return base / FilePath(path)


def _located(problem: Problem, document: Document) -> Located:
    line = getattr(problem, "line", 0) or document.line(steps(problem.path))
    return Located(problem.path, problem.message, problem.advice, problem.severity, line=line)


def _in_order(problems: list[Located]) -> list[Located]:
    ordered = sorted(problems, key=lambda problem: (problem.line, steps_key(problem.path)))
    if len(ordered) <= MAX_PROBLEMS:
        return ordered
    more = Located("", f"{len(ordered) - MAX_PROBLEMS} further problems are not shown", "mend these first, then check again")
    return [*ordered[:MAX_PROBLEMS], more]


def steps_key(path: str) -> tuple[tuple[int, str], ...]:
    """Sorts paths as a reader expects: ``tags[2]`` before ``tags[10]``."""
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in steps(path))


# The short way


def _convert(value: Plain, drivers: Drivers) -> Site | None:
    try:
        site = msgspec.convert(value, Site)
        connections = tuple(_connection(one, drivers) for one in site.connections)
    except (msgspec.ValidationError, LookupError, TypeError, Broken):
        return None
    return msgspec.structs.replace(site, connections=connections)


def _connection(value: Plain, drivers: Drivers) -> msgspec.Struct:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise TypeError
    return msgspec.convert(value, drivers[value["type"]].options)


# The long way


@dataclass(slots=True)
class _Walk:
    drivers: Drivers
    problems: list[Problem] = field(default_factory=list)
    hidden: bool = False
    """Inside a secret reference: no value is repeated."""

    def site(self, value: Plain) -> None:
        if value is None:
            self.say((), "the document is empty", "holdfast sample prints a commented start")
            return
        self.struct(value, Site, ())
        if isinstance(value, dict) and isinstance(value.get("connections"), list):
            for index, one in enumerate(value["connections"]):
                self.connection(one, ("connections", index))
        if not self.problems:
            self.refused(value, Site, ())

    def say(self, path: Path, message: str, advice: str = "") -> None:
        self.problems.append(Problem(show(path), message, advice))

    def connection(self, value: Plain, path: Path) -> None:
        known = sorted(self.drivers)
        if not isinstance(value, dict):
            self.say(path, f"expected a connection with its keys, got {describe(value)}", "begin with - name: and type:")
            return
        tag = value.get("type")
        if not isinstance(tag, str) or tag not in self.drivers:
            self.wrong_tag(path, "type", "type" in value, tag, known)
            return
        try:
            options = self.drivers[tag].options
        except Broken as error:
            self.say((*path, "type"), str(error))
            return
        before = len(self.problems)
        self.struct(value, options, path)
        if len(self.problems) == before:
            self.refused(value, options, path)

    def refused(self, value: Plain, form: TypeForm, path: Path) -> None:
        """Whatever msgspec refuses and the walk did not find: never silence."""
        try:
            msgspec.convert(value, form)
        except msgspec.ValidationError as error:
            message, _, inner = str(error).partition(" - at `$")
            self.problems.append(Problem(show((*path, *steps(inner.rstrip("`")))), message, "see the reference of this key"))

    def value(self, value: Plain, form: TypeForm, path: Path) -> None:
        core, limits = unwrap(form)
        members = [one for one in members_of(core) if one is not type(None)]
        if value is None and len(members) < len(members_of(core)):
            return
        structs = [one for one in members if is_struct(one)]
        if structs and len(structs) == len(members):
            self.structs(value, structs, path)
        elif len(members) == 1 and (inner := item_of(members[0])) is not None and isinstance(value, list):
            self.items(value, inner, limits, path)
        elif len(members) == 1 and (inner := entry_of(members[0])) is not None and isinstance(value, dict):
            for key, one in value.items():
                self.value(one, inner, (*path, key))
        else:
            self.leaf(value, form, path)

    def items(self, value: list[Plain], inner: TypeForm, limits: list[msgspec.Meta], path: Path) -> None:
        for meta in limits:
            if meta.max_length is not None and len(value) > meta.max_length:
                self.say(path, f"{len(value)} entries, at most {meta.max_length} are possible", "remove some")
            if meta.min_length is not None and len(value) < meta.min_length:
                self.say(path, f"{len(value)} entries, at least {meta.min_length} are needed", "add some")
        for index, one in enumerate(value):
            self.value(one, inner, (*path, index))

    def structs(self, value: Plain, structs: list[type[msgspec.Struct]], path: Path) -> None:
        tags = {config.tag: one for one in structs if (config := one.__struct_config__).tag is not None}
        if not tags or not isinstance(value, dict):
            self.struct(value, structs[0], path, several=len(structs) > 1)
            return
        tag_field = str(structs[0].__struct_config__.tag_field)
        tag = value.get(tag_field)
        chosen = tags.get(tag) if isinstance(tag, str | int) else None
        if chosen is not None:
            self.struct(value, chosen, path)
        else:
            shown = None if chosen_secret(structs) else tag
            self.wrong_tag(path, tag_field, tag_field in value, shown, [str(one) for one in tags])

    def wrong_tag(self, path: Path, key: str, there: bool, tag: Plain, known: list[str]) -> None:
        one_of = f"one of {', '.join(known)}" if known else "nothing: no driver is installed"
        if not there:
            self.say(path, f"{key} is missing", f"say what it is: {key} is {one_of}")
        else:
            shown = f" {quote(tag)}" if isinstance(tag, str) else ""
            self.say((*path, key), f"there is no {key}{shown}", did_you_mean(tag, known) or f"{key} is {one_of}")

    def struct(self, value: Plain, struct: type[msgspec.Struct], path: Path, *, several: bool = False) -> None:
        if not isinstance(value, dict):
            if struct in SECRETS:
                advice = "write {from: file, path: ...}, {from: env, name: ...} or {from: credential, name: ...}, never the secret itself"
                self.say(path, "expected a reference to a secret", advice)
                return
            keys = ", ".join(one.encode_name for one in fields_of(struct)[:6])
            what = "one of several shapes" if several else f"the keys of {struct.__name__} ({keys}, ...)"
            got = "text" if isinstance(value, str) else describe(value)  # the text may be a secret in a wrong place
            self.say(path, f"expected {what}, got {got}", _shape_advice(value))
            return
        fields = {one.encode_name: one for one in fields_of(struct)}
        self.unknown(value, struct, fields, path)
        outside = self.hidden
        for key, one in fields.items():
            if key in value:
                self.hidden = outside or struct in SECRETS or _SENSITIVE.search(key) is not None
                self.value(value[key], one.type, (*path, key))
                self.hidden = outside
            elif one.required:
                self.say((*path, key), f"{key} is missing", f"add {key}: {meaning(one.type) or 'it has no default'}")

    def unknown(
        self, value: dict[str, Plain], struct: type[msgspec.Struct], fields: Mapping[str, msgspec.structs.FieldInfo], path: Path
    ) -> None:
        config = struct.__struct_config__
        if not config.forbid_unknown_fields:
            return
        tag_field = config.tag_field if config.tag is not None else None
        for key in value:
            if key in fields or key == tag_field:
                continue
            free = [one for one in fields if one not in value]
            advice = did_you_mean(key, free) or did_you_mean(key, list(fields))
            self.say((*path, key), f"there is no key {quote(key)} here", advice or f"possible: {', '.join(fields)}")

    def leaf(self, value: Plain, form: TypeForm, path: Path) -> None:
        if form is Any:
            return
        try:
            msgspec.convert(value, form)
        except msgspec.ValidationError:
            got = "something else" if self.hidden else describe(value)
            advice = meaning(form) if self.hidden else advise(value, form, str(path[-1]) if path else "")
            self.say(path, f"expected {expectation(form)}, got {got}", advice)


# What types look like


def origin_of(form: TypeForm) -> object:
    """``typing.get_origin``, whose stub promises too much."""
    return typing.get_origin(form)


def unwrap(form: TypeForm) -> tuple[TypeForm, list[msgspec.Meta]]:
    """A type without its alias (``type X = ...``) and ``Annotated``, and its Metas."""
    form = getattr(form, "__value__", form)
    if origin_of(form) is Annotated:
        core, *extras = typing.get_args(form)
        return core, [one for one in extras if isinstance(one, msgspec.Meta)]
    return form, []


def members_of(core: TypeForm) -> list[TypeForm]:
    """The members of a union; a type alone is its own only member."""
    if origin_of(core) in (typing.Union, types.UnionType):
        return [unwrap(one)[0] if is_struct(unwrap(one)[0]) else one for one in typing.get_args(core)]
    return [core]


def is_struct(form: TypeForm) -> bool:
    return isinstance(form, type) and issubclass(form, msgspec.Struct)


def chosen_secret(structs: list[type[msgspec.Struct]]) -> bool:
    return any(one in SECRETS for one in structs)


def item_of(form: TypeForm) -> TypeForm | None:
    """``X`` of ``list[X]`` and ``tuple[X, ...]``."""
    core = unwrap(form)[0]
    origin, arguments = origin_of(core), typing.get_args(core)
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return arguments[0]
    return None


def entry_of(form: TypeForm) -> TypeForm | None:
    """``X`` of ``dict[str, X]``."""
    core = unwrap(form)[0]
    arguments = typing.get_args(core)
    return arguments[1] if origin_of(core) is dict and arguments[0] is str else None


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def meaning(form: TypeForm) -> str:
    """The description that stands at a type; the last one, which is the nearest to the field."""
    core, metas = unwrap(form)
    texts = [one.description for one in metas if one.description]
    if texts:
        return texts[-1]
    inner = [text for one in members_of(core) if one is not core and not is_struct(one) and (text := meaning(one))]
    if inner:
        return inner[0]
    return (core.__doc__ or "").split("\n")[0] if is_struct(core) else ""


def expectation(form: TypeForm, *, patterns: bool = True) -> str:
    """What a type asks for, in words: ``a whole number from 1 to 65535``. Without ``patterns`` no regular expression."""
    core, metas = unwrap(form)
    members = members_of(core)
    if len(members) > 1:
        return " or ".join(dict.fromkeys("null" if one is type(None) else expectation(one, patterns=patterns) for one in members))
    return _plain_expectation(core) + _limits(metas, core, patterns)


def choices(form: TypeForm) -> list[Plain]:
    """The values of a Literal or an Enum, as users write them."""
    core = unwrap(form)[0]
    if origin_of(core) is typing.Literal:
        return list(typing.get_args(core))
    if isinstance(core, type) and issubclass(core, enum.Enum):
        return [one.value for one in core]
    return []


_WORDS: Final[dict[TypeForm, str]] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing", bytes: "base64 text",
}  # fmt: skip


def _choice(value: Plain) -> str:
    return quote(value) if isinstance(value, str) and not isinstance(resolve_scalar(value), str) else str(value)


def _plain_expectation(core: TypeForm) -> str:
    if possible := choices(core):
        return ("one of " if len(possible) > 1 else "") + ", ".join(_choice(one) for one in possible)
    if item_of(core) is not None:
        return "a list"
    if entry_of(core) is not None or is_struct(core):
        return "keys with values"
    return _WORDS.get(core, str(getattr(core, "__name__", core)))


_LIMITS: Final = (
    ("gt", " above {}"),
    ("ge", " of at least {}"),
    ("le", " of at most {}"),
    ("lt", " below {}"),
    ("multiple_of", " that is a multiple of {}"),
    ("min_length", " of at least {} {noun}"),
    ("max_length", " of at most {} {noun}"),
    ("pattern", " like {}"),
)


_RANGES: Final = (
    ("ge", "le", " from {} to {}"),
    ("gt", "le", " above {} and up to {}"),
    ("min_length", "max_length", " of {} to {} {noun}"),
)


def _limits(metas: list[msgspec.Meta], core: TypeForm, patterns: bool) -> str:
    limits: dict[str, Any] = {name: limit for meta in metas for name, _ in _LIMITS if (limit := getattr(meta, name)) is not None}
    noun = "characters" if core is str else "entries"
    text = ""
    for low, high, shape in _RANGES:
        if low in limits and high in limits:
            text += shape.format(_number(limits.pop(low)), _number(limits.pop(high)), noun=noun)
    if limits.get("min_length") == 1:
        text += " that is not empty"
        limits.pop("min_length")
    if "pattern" in limits and (hint := next((meta.extra["hint"] for meta in metas if meta.extra and "hint" in meta.extra), "")):
        text += f": {hint}"
        limits.pop("pattern")
    if not patterns:
        limits.pop("pattern", None)
    return text + "".join(shape.format(_number(limits[name]), noun=noun) for name, shape in _LIMITS if name in limits)


def _number(limit: Any) -> str:  # Any: a limit of any kind
    return f"{limit:.15g}" if isinstance(limit, float) else str(limit)


# What values look like, and what may have been meant


def describe(value: Plain) -> str:
    """A value as a problem names it: short, printable."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    return f"a list of {len(value)}" if isinstance(value, list) else "a mapping of keys"


def did_you_mean(word: Plain, known: list[str]) -> str:
    """``did you mean ...?`` where one of ``known`` is near, else empty."""
    if not isinstance(word, str) or len(word) > 64:
        return ""
    plain = word.strip().lower().replace("-", "_").replace(" ", "_")
    shapes = {one.lower().replace("-", "_"): one for one in known}
    if plain in shapes:
        return f"did you mean {shapes[plain]}?"
    if (meant := SYNONYMS.get(plain)) in known:
        return f"did you mean {meant}?"
    prefixed = [one for shape, one in shapes.items() if shape.startswith(plain + "_")]
    if prefixed:
        return f"did you mean {prefixed[0]}?"
    near = difflib.get_close_matches(plain, list(shapes), n=1, cutoff=0.6)
    return f"did you mean {shapes[near[0]]}?" if near else ""


_UNITS: Final = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes", "_percent": "percent"}
_TRUE_FALSE: Final = {
    **dict.fromkeys(("yes", "on", "y"), "true"),
    **dict.fromkeys(("no", "off", "n"), "false"),
}


def unit_of(key: str) -> str:
    """The unit that a key's name carries, in words; empty for none."""
    return next((unit for ending, unit in _UNITS.items() if key.endswith(ending)), "")


def advise(value: Plain, form: TypeForm, key: str) -> str:
    """What somebody who wrote ``value`` where ``form`` is expected should write."""
    members = [unwrap(one)[0] for one in members_of(unwrap(form)[0])]
    for advice in (*_text_advice(value, form, members, key), *_other_advice(value, form, members)):
        if advice:
            return advice
    text = meaning(form)
    return text or "see docs/reference/configuration.md"


def _text_advice(value: Plain, form: TypeForm, members: list[TypeForm], key: str) -> Iterator[str]:
    if not isinstance(value, str):
        return
    if possible := choices(form):
        yield did_you_mean(value, [str(one) for one in possible])
    if bool in members:
        word = _TRUE_FALSE.get(value.lower(), value.lower())
        yield f"write {word} without quotes" if word in ("true", "false") else "write true or false without quotes"
    if int in members or float in members:
        yield _number_advice(value, key)


def _number_advice(text: str, key: str) -> str:
    unit = unit_of(key)
    bare = text.strip().replace("_", "").replace(",", ".")
    number = re.match(r"[-+]?\d{1,40}(?:\.\d{1,40})?", bare)
    if number is None:
        return ""
    shown = number[0].lstrip("0") or "0"
    shown = f"0{shown}" if shown.startswith(".") else shown
    if number[0] == bare:
        return f"write {shown}, without quotes, leading zeros or separators"
    return f"write the number alone, in {unit}" if unit else "write the number alone"


def _other_advice(value: Plain, form: TypeForm, members: list[TypeForm]) -> Iterator[str]:
    texts = str in members or any(isinstance(one, str) for one in choices(form))
    if texts and isinstance(value, bool | int | float):
        yield f'put it in quotes: "{describe(value).removeprefix("the number ")}"'
    if value is None:
        yield "give a value, or remove the key to have the default"
    if any(item_of(one) is not None for one in members):
        yield "begin each entry with a dash, or write [a, b]"
    if int in members and isinstance(value, float) and value.is_integer():
        yield f"write {int(value)}"


def _shape_advice(value: Plain) -> str:
    if value is None:
        return "indent the keys below this line further than the line itself"
    if isinstance(value, list):
        return "remove the dash: this is one thing, not a list"
    return "write key: value pairs, indented below it"
