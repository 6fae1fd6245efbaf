"""A document to a :class:`Site`, or everything that is wrong with it at once.

A good document takes the short way: msgspec converts it in one go. msgspec stops at the first error, so a document that
it refuses is walked along the Structs, each field on its own: unknown keys, missing keys, wrong types and limits, every one
with its path, its line and advice. msgspec stays the only judge of what is right; the walk finds where and says it well.

No value is repeated where a secret reference is expected: somebody may have written the secret itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from gateway.config.check import check
from gateway.config.document import (
    MAX_BYTES,
    MAX_PROBLEMS,
    Document,
    Located,
    Path,
    Plain,
    parse,
    parse_yaml,
    quote,
    reading_order,
    show,
    steps,
)
from gateway.config.drivers import Broken, Drivers, installed
from gateway.config.explain import (
    TypeForm,
    advise,
    describe,
    did_you_mean,
    entry_of,
    expectation,
    fields_of,
    is_struct,
    item_of,
    meaning,
    members_of,
    shape_advice,
    unwrap,
)
from gateway.config.model import Site
from gateway.config.places import rooted
from gateway.config.sound import Sound
from gateway.config.templates import expand, library
from protocols.contract import Problem
from protocols.secret import FromCredential, FromEnv, FromFile
from protocols.templates.library import Library

SECRETS: Final = frozenset((FromFile, FromEnv, FromCredential))

_SENSITIVE: Final = re.compile("(?i)password|passphrase|secret|token|credential")
"""Keys whose values are never repeated, also where a driver did not make them secret references."""


def load(source: FilePath | str | bytes, *, drivers: Drivers | None = None) -> tuple[Site | None, list[Problem]]:
    """The site in a file (a path) or in bytes, or None and every problem, sorted by line.

    Touches no file but ``source`` and the device templates that it names.

    A site that is given has still to be judged by :func:`check`; where None is given, its sound parts have been.
    """
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
    return load_bytes(raw, drivers=drivers, templates=library(source))


def load_bytes(raw: bytes, *, drivers: Drivers | None = None, templates: Library | None = None) -> tuple[Site | None, list[Problem]]:
    """As :func:`load`."""
    drivers = installed() if drivers is None else drivers
    document, problems = parse(raw)
    if document is None:
        return None, [*problems]
    expanded = expand(document.value, library(raw) if templates is None else templates)
    site = None if problems or expanded.problems else _convert(expanded.value, drivers)
    if site is not None:
        return site, []
    walk = _Walk(drivers)
    walk.site(expanded.value)
    found = [*problems, *expanded.problems, *walk.problems]
    found += _judged(expanded.value, found, drivers)
    lines = document if document.lines else parse_yaml(raw)[0] or document  # JSON has lines when it is read as YAML
    return None, [*_in_order([_located(expanded.as_written(problem), lines) for problem in found])]


def _judged(value: Plain, wrong: list[Problem], drivers: Drivers) -> list[Problem]:
    """The errors in the parts of a wrong document that can be read, as :func:`check` says them."""
    paths = [steps(problem.path) for problem in wrong]
    if () in paths:
        return []
    sound = Sound(value, paths)
    site = _convert(sound.value, drivers)
    if site is None:
        walk = _Walk(drivers)
        walk.site(sound.value)
        sound = Sound(value, paths, whole=[sound.place(steps(problem.path)) for problem in walk.problems])
        site = _convert(sound.value, drivers)
    found = [] if site is None else [_as_it_stood(problem, sound) for problem in check(site, drivers=drivers)]
    errors = [problem for problem in found if problem.severity == "error"]
    if sound.lost_a_key("connections") or not {path[0] for path in paths}.isdisjoint(_BUDGET):
        return [problem for problem in errors if not problem.path.startswith(_BUDGET)]
    return errors


_BUDGET: Final = ("journal", "outage_budget_s")
"""What the outage budget is judged by, besides the rates of the connections."""


def _as_it_stood(problem: Problem, sound: Sound) -> Problem:
    path = steps(problem.path)
    message, advice = sound.text(problem.message, path), sound.text(problem.advice, path)
    return msgspec.structs.replace(problem, path=show(sound.place(path)), message=message, advice=advice)


def locate(problems: list[Problem], source: FilePath | str | bytes) -> list[Problem]:
    """``problems`` of :func:`check` with the lines of the document that they are about; as they are if it cannot be read."""
    try:
        raw = source if isinstance(source, bytes) else FilePath(source).read_bytes()
    except OSError:
        return [*problems]
    document, _ = parse_yaml(raw)
    if document is None:
        return [*problems]
    expanded = expand(document.value, library(source))
    return [_located(expanded.as_written(problem), document) for problem in problems]


def judge(source: FilePath | str | bytes) -> tuple[Site | None, list[Problem]]:
    """``source`` loaded and checked: a Site that may be run, or None and at least one error; all problems with their lines."""
    site, problems = load(source)
    if site is not None:
        problems = locate([*problems, *check(site)], source)
    if site is None or any(problem.severity == "error" for problem in problems):
        return None, problems
    return rooted(site, source.parent) if isinstance(source, FilePath) else site, problems


def _located(problem: Problem, document: Document) -> Located:
    line = getattr(problem, "line", 0) or document.line(steps(problem.path))
    return Located(problem.path, problem.message, problem.advice, problem.severity, line=line)


def _in_order(problems: list[Located]) -> list[Located]:
    ordered = sorted(problems, key=lambda problem: (problem.line, reading_order(problem.path)))
    if len(ordered) < MAX_PROBLEMS:
        return ordered
    more = Located("", "there are more problems than are shown", "mend these first, then check again")
    return [*ordered[:MAX_PROBLEMS], more]


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
        if len(self.problems) >= MAX_PROBLEMS:
            return
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
        if len(self.problems) >= MAX_PROBLEMS:
            return  # nobody reads more, and a large document must not take for ever
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
            shown = None if any(one in SECRETS for one in structs) else tag
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
            self.say(path, f"expected {what}, got {got}", shape_advice(value))
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
            if len(self.problems) >= MAX_PROBLEMS:
                return
            free = [one for one in fields if one not in value]
            advice = did_you_mean(key, free) or did_you_mean(key, list(fields))
            if key.isdecimal():  # {deadband: 0,05} is deadband: 0 and a key 05
                advice = f"decimals have a point: write 0.{key}" if len(key) < 20 else ""
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
