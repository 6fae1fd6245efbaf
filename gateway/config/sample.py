"""A commented site to start from, made from the Structs: every option with its meaning, limits and default.

What is needed stands as it is; what has a default stands behind ``#`` without a space, so that removing that one
character switches it on. The sample is a right document as it stands, and also with all of those removed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any, Final

from gateway.config.drivers import Drivers, installed, usable
from gateway.config.explain import choices, expectation
from gateway.config.model import Site
from gateway.config.options import Option, Shape, options_of, scalar, spoken, summary, tag_of

WIDTH: Final = 118

EXAMPLES: Final[dict[str, Any]] = {
    "holdfast": 1,
    "group": "plant-7",
    "Gateway.name": "gw-01",
    "SparkplugUplink.name": "cloud",
    "SparkplugUplink.host": "broker.example.com",
    "PlainMqttUplink.name": "historian",
    "PlainMqttUplink.host": "10.0.0.5",
    "CoapServer.tls": {"cert_file": "/etc/holdfast/gw.pem", "key_file": "/etc/holdfast/gw.key"},
    "Webhook.tls": {"cert_file": "/etc/holdfast/gw.pem", "key_file": "/etc/holdfast/gw.key"},
    "ModbusFace.name": "scada",
    "OpcuaFace.name": "mes",
    "FaceUser.name": "operator",
    "Tenant.name": "machine-builder",
    "Tenant.devices": ["press-*"],
    "Broker.host": "broker-2.example.com",
    "serial_port": "/dev/ttyS{n}",
    "host": "192.168.10.2{n}",
    "at": "holding:0",
    "kind": "float32",
    "tags.name": "steam/pressure",
    "devices.name": "boiler-{n}",
    "connections.name": "line-{n}",
    "unit_id": 1,
    "tls": {"ca_file": "/etc/holdfast/ca.pem"},
    "password": {"from": "file", "path": "/etc/holdfast/password"},
    "key_password": {"from": "credential", "name": "key-password"},
    "fallback": [{"host": "broker-2.example.com"}],
}
"""Values for what has no default: by Struct and key, by list and key, or, where the Struct itself gives no example, by key."""

HEAD: Final = """\
Configuration of a Holdfast gateway. Lines that begin with # and a space explain; lines that begin with # alone are options
with their default: remove the # to change one. `holdfast check FILE` says what is wrong, `holdfast schema` prints the JSON
Schema for an editor. Paths are relative to this file. Secrets are never written here: only where they lie."""


def sample(*, drivers: Drivers | None = None) -> str:
    """The commented document, YAML."""
    used = usable(installed() if drivers is None else drivers)
    writer = _Writer()
    writer.prose(HEAD, 0)
    for option in options_of(Site):
        writer.gap()
        if option.key == "connections":
            writer.entries(option, [one.options for _, one in sorted(used.items(), key=_network_first)])
        elif option.several and option.shapes:
            writer.entries(option, list(option.shapes))
        elif option.shapes:
            writer.section(option)
        else:
            writer.option(option, Site, 0)
    return "\n".join(writer.lines) + "\n"


def _network_first(named: tuple[str, object]) -> tuple[bool, str]:
    """The plainest driver first, because it is the one whose options are explained in full."""
    return not named[0].endswith("-tcp") or named[0].count("-") > 1, named[0]


class _Writer:
    """Lines of the sample. One use."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._said: set[tuple[str, str]] = set()
        self._number = 0

    def gap(self) -> None:
        self.lines.append("")

    def prose(self, text: str, indent: int, hang: str = "") -> None:
        start = " " * indent + "# "
        self.lines += textwrap.wrap(
            text, WIDTH, initial_indent=start, subsequent_indent=start + hang, break_long_words=False, break_on_hyphens=False
        )

    def section(self, option: Option) -> None:
        """A mapping that every site has: all its options stand switched on."""
        (shape,) = option.shapes
        self.prose(option.meaning or summary(shape), 0)
        self.lines.append(f"{option.key}:")
        for inner in options_of(shape):
            self.option(inner, shape, 2, live=not inner.secret)

    def entries(self, option: Option, shapes: list[Shape]) -> None:
        self._said.clear()
        self.prose(option.meaning, 0)
        self.lines.append(f"{option.key}:" if shapes else f"{option.key}: []")
        for shape in shapes:
            self._number += 1
            self.entry(shape, option.key, 2)

    def entry(self, shape: Shape, place: str, indent: int) -> None:
        """One entry of a list: needed keys first, then the options, then the lists below it."""
        self.prose(summary(shape), indent)
        options = options_of(shape)
        needed = [one for one in options if one.required]
        tag = tag_of(shape)
        head = [f"{one.key}: {scalar(self.example(one, shape, place))}" for one in needed]
        if tag is not None:
            head.insert(1, f"{tag[0]}: {tag[1]}")
        notes: list[Option | None] = [*needed[:1], *([None] if tag is not None else []), *needed[1:]]
        for number, (line, note) in enumerate(zip(head, notes, strict=True)):
            if note is not None and self.first_time(note):
                self.prose(explained(note), indent + (2 if number else 0))
            self.lines.append(" " * indent + ("  " if number else "- ") + line)
        self.rest([one for one in options if not one.required], shape, indent + 2)

    def rest(self, options: list[Option], shape: Shape, indent: int) -> None:
        known = [one for one in options if (one.key, str(one.form)) in self._said]
        lists = [one for one in options if one.key in ("devices", "requests", "tags") and one not in known]
        for one in options:
            if one not in known and one not in lists:
                self.option(one, shape, indent)
        if known:
            self.prose(f"As above: {', '.join(one.key for one in known)}.", indent)
        for one in lists:
            self.first_time(one)
            self.prose(explained(one), indent)
            self.lines.append(" " * indent + f"{one.key}:")
            for inner in one.shapes[:1]:
                self.entry(inner, one.key, indent + 2)

    def option(self, option: Option, shape: Shape, indent: int, *, live: bool = False) -> None:
        """One key with its explanation; what is nested below it is explained in the same place."""
        self.prose(explained(option), indent)
        if self.first_time(option):
            self.nested(option, indent)
        value = self.example(option, shape, "") if option.required or option.shapes else option.default
        mark = "" if live or option.required else "#"
        self.lines.append(" " * indent + f"{mark}{option.key}: {scalar(value)}")

    def nested(self, option: Option, indent: int, inset: str = "  ") -> None:
        if option.secret:
            self.prose("One of {from: file, path: ...}, {from: env, name: ...}, {from: credential, name: ...}.", indent)
            return
        for shape in option.shapes:
            for inner in options_of(shape):
                self.prose(f"{inset}{inner.key}: {explained(inner)}", indent, hang=inset + "  ")
                if inner.shapes and not inner.secret:
                    self.nested(inner, indent, inset + "  ")

    def first_time(self, option: Option) -> bool:
        identity = (option.key, str(option.form))
        if identity in self._said:
            return False
        self._said.add(identity)
        return True

    def example(self, option: Option, shape: Shape, place: str) -> Any:  # Any: plain values of any kind
        names = (f"{shape.__name__}.{option.key}", f"{place}.{option.key}", *([] if option.examples else [option.key]))
        given = next((EXAMPLES[name] for name in names if name in EXAMPLES), None)
        if isinstance(given, str) and "{n}" in given:
            return given.format(n=self._number)
        found: Iterable[Any] = (*([] if given is None else [given]), *option.examples, *choices(option.form), option.default)
        return next(iter(found))


def explained(option: Option) -> str:
    """An option in prose: meaning, what it expects, default."""
    parts = [option.meaning.rstrip(".")] if option.meaning else []
    expected = "" if option.shapes else expectation(option.form, patterns=False)
    if expected not in ("", "text"):
        unit = f", {option.unit}" if option.unit and option.unit not in option.meaning else ""
        parts.append(expected[0].upper() + expected[1:] + unit)
    if not option.required and not (option.several and not option.default):
        parts.append(f"Default: {_default(option)}")
    return ". ".join(parts) + "." if parts else ""


def _default(option: Option) -> str:
    if option.shapes and option.default:
        return "as its own keys say"
    return "empty" if option.default == "" else spoken(option.default, option.unit)
