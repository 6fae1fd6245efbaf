"""Everything that is wrong with a loaded site beyond what types and limits can say: a table of small rules.

Pure: it touches neither the network nor files (``files.py`` does). Each rule yields problems with the path of what it is
about; a driver judges its own connections. The budget counts the connections
in which nothing is wrong.
"""

from __future__ import annotations

import ipaddress
import posixpath
import string
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from gateway.config import access, budget
from gateway.config.commands import problems as command_problems
from gateway.config.document import reading_order, show
from gateway.config.drivers import Drivers, installed
from gateway.config.explain import did_you_mean, fields_of
from gateway.config.faces import OpcuaFace, networks
from gateway.config.model import CLOCK, COMMANDS, MqttUplink, PlainMqttUplink, Site, SparkplugUplink
from gateway.config.register_map import problems as register_problems
from protocols.contract import Driver, Problem
from protocols.model import Device
from protocols.tls import Tls


def check(site: Site, *, drivers: Drivers | None = None) -> list[Problem]:
    """All problems of ``site``, errors and warnings, sorted by path. Touches nothing."""
    drivers = installed() if drivers is None else drivers
    found = [problem for rule in RULES for problem in rule(site)]
    named = {problem.path for problem in _names(site)}  # a driver may see equal names too
    right: list[Any] = []  # Any: each driver has its own Struct
    for index, options in enumerate(site.connections):
        problems = list(_connection(index, options, drivers))
        found.extend(problem for problem in problems if problem.path not in named)
        if not any(problem.severity == "error" for problem in problems):
            right.append(options)
    found.extend(_faces(site, [device for options in right for device in drivers[options.__struct_config__.tag].devices(options)]))
    if len(right) == len(site.connections):  # what a connection that is wrong has is not known
        found.extend(_commands(site, [device for options in right for device in drivers[options.__struct_config__.tag].devices(options)]))
    found.extend(_outage_budget(site, right, drivers))
    return in_order(found)


def client_id(site: Site, uplink: MqttUplink) -> str:
    """The MQTT client id of ``uplink``."""
    return uplink.client_id or f"holdfast-{site.gateway.group}-{site.gateway.name}-{uplink.name}"


def structs(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], msgspec.Struct]]:
    """Every Struct in a configuration, outer before inner, each with its path."""
    if isinstance(value, msgspec.Struct):
        yield path, value
        for one in fields_of(type(value)):
            inner = getattr(value, one.name)
            if isinstance(inner, msgspec.Struct | tuple | list):
                yield from structs(inner, (*path, one.encode_name))
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from structs(inner, (*path, index))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """``problems`` as a reader expects them, each once, in texts that any terminal can show: names in them are the document's."""
    unique = {(one.path, one.message): _shown(one) for one in problems}
    return sorted(unique.values(), key=lambda one: (reading_order(one.path), one.severity, one.message))


def _shown(problem: Problem) -> Problem:
    if problem.message.isprintable() and problem.advice.isprintable():
        return problem
    return msgspec.structs.replace(problem, message=_printable(problem.message), advice=_printable(problem.advice))


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def warning(path: tuple[str | int, ...], message: str, advice: str) -> Problem:
    return Problem(show(path), message, advice, "warning")


def error(path: tuple[str | int, ...], message: str, advice: str) -> Problem:
    return Problem(show(path), message, advice)


# Faces


def _faces(site: Site, devices: list[Device]) -> Iterator[Problem]:
    ports: dict[int, str] = {site.telemetry.metrics_port: "telemetry.metrics_port"}
    for at, face in enumerate(site.faces):
        path = ("faces", at)
        try:
            networks(face.clients)
        except ValueError as reason:
            yield error((*path, "clients"), f"this is neither an address nor a network: {reason}", "write 192.0.2.7 or 192.0.2.0/24")
        if face.clients == type(face)(name="face").clients and not _is_loopback(face.host):
            advice = "write clients: the addresses or networks of those who may"
            yield warning((*path, "clients"), f"it listens on {face.host}, and nobody but this machine may connect", advice)
        if face.port and ports.setdefault(face.port, show((*path, "port"))) != show((*path, "port")):
            yield error((*path, "port"), f"{ports[face.port]} is {face.port} too", "give each its own port")
        if isinstance(face, OpcuaFace):
            yield from _opcua_face(path, face)
        elif len(devices) == sum(1 for _ in _devices(site)):  # a connection that is wrong is said already
            for problem in register_problems(face, devices):
                yield msgspec.structs.replace(problem, path=f"{show(path)}.{problem.path}")


def _opcua_face(path: tuple[str | int, ...], face: OpcuaFace) -> Iterator[Problem]:
    security = face.security
    is_open = not _is_loopback(face.host)
    if is_open and not (face.anonymous or face.users or face.user_certificates):
        message = f"it listens on {face.host}, and nobody may enter"
        yield warning((*path, "users"), message, "add users, or set user_certificates or anonymous")
    if is_open and "none" in security.policies:
        message = f"it listens on {face.host}, and what goes over the network can be read and changed by anybody"
        yield warning((*path, "security", "policies"), message, "remove none, and have the clients use one of the others")
    if bool(security.cert_file) != bool(security.key_file):
        missing = "key_file" if security.cert_file else "cert_file"
        yield error((*path, "security", missing), "a certificate and its key belong together", f"add {missing}, or give neither")
    names = [((*path, "users", at, "name"), user.name) for at, user in enumerate(face.users)]
    yield from _unique("user", names, where=" on this face")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# Commands


def _commands(site: Site, devices: list[Device]) -> Iterator[Problem]:
    for problem in command_problems(site.commands, devices, [one.name for one in (*site.uplinks, *site.faces)]):
        yield msgspec.structs.replace(problem, path=f"commands.{problem.path}")


# Connections


def _connection(index: int, options: Any, drivers: Drivers) -> Iterator[Problem]:  # Any: the driver's own Struct
    for problem in drivers[options.__struct_config__.tag].check(options):
        path = f"connections[{index}]" + (f".{problem.path}" if problem.path and problem.path[0] != "[" else problem.path)
        yield msgspec.structs.replace(problem, path=path)


def _names(site: Site) -> Iterator[Problem]:
    yield from _unique("connection", [(("connections", at, "name"), one.name) for at, one in enumerate(site.connections)])
    yield from _unique("device", [((*path, "name"), device.name) for path, device in _devices(site)])
    yield from _unique("uplink", [(("uplinks", at, "name"), one.name) for at, one in enumerate(site.uplinks)])
    yield from _unique("face", [(("faces", at, "name"), one.name) for at, one in enumerate(site.faces)])
    for path, device in _devices(site):
        if device.name == COMMANDS:
            yield error((*path, "name"), f"{COMMANDS} is what outcomes of commands are recorded under", "give the device another name")
        if device.name == CLOCK:
            yield error(
                (*path, "name"), f"{CLOCK} is what changes of the gateway's clock are recorded under", "give the device another name"
            )
        tags = [((*path, "tags", at, "name"), tag.name) for at, tag in enumerate(getattr(device, "tags", ()))]
        yield from _unique("tag", tags, where=" in this device")


def _devices(site: Site) -> Iterator[tuple[tuple[str | int, ...], Any]]:  # Any: each driver has its own device Struct
    for at, connection in enumerate(site.connections):
        for place, device in enumerate(getattr(connection, "devices", ())):
            yield ("connections", at, "devices", place), device


def _unique(what: str, names: list[tuple[tuple[str | int, ...], str]], where: str = "") -> Iterator[Problem]:
    seen: dict[str, tuple[tuple[str | int, ...], str]] = {}
    for path, name in names:
        first, earlier = seen.setdefault(name.casefold(), (path, name))
        if first == path:
            continue
        if earlier == name:
            scope = where or " in the whole site"
            yield error(path, f"there are two {what}s {name!r}; the first is {show(first[:-1])}", f"give each a name of its own{scope}")
        else:
            advice = "some clouds and people do not tell them apart: rename one"
            yield warning(path, f"{what} {name!r} differs from {earlier!r} ({show(first[:-1])}) only in upper and lower case", advice)


def _topic_names(site: Site) -> Iterator[Problem]:
    """Connection and device names become levels of MQTT topics (MQTT 5, 4.7; Sparkplug 3.0, 4.1)."""
    named: list[tuple[tuple[str | int, ...], str]] = [(("connections", at, "name"), one.name) for at, one in enumerate(site.connections)]
    named += [((*path, "name"), device.name) for path, device in _devices(site)]
    for path, name in named:
        if any(sign in "/+#" or not sign.isprintable() for sign in name) or not name.strip():
            yield error(path, f"{name!r} cannot be part of a topic", "use letters, digits, _ - . and spaces; not / + #")
    for path, device in _devices(site):
        for at, tag in enumerate(getattr(device, "tags", ())):
            if not tag.name.strip() or not tag.name.isprintable():
                yield error((*path, "tags", at, "name"), f"{tag.name!r} cannot be a tag's name", "use printable text")


def _one_line_each(site: Site) -> Iterator[Problem]:
    """A serial line carries one request at a time; a device on the network may or may not serve several clients."""
    serial: dict[str, int] = {}
    network: dict[str, int] = {}
    for at, connection in enumerate(site.connections):
        port, endpoint = getattr(connection, "serial_port", None), _endpoint(connection)
        if isinstance(port, str) and (first := serial.setdefault(posixpath.normpath(port), at)) != at:
            message = f"connections[{first}] already uses {port}; a line takes one request at a time"
            yield error(("connections", at, "serial_port"), message, _JOIN.format(first))
        if endpoint and (first := network.setdefault(endpoint, at)) != at:
            message = f"connections[{first}] already goes to {endpoint}; many devices serve one client at a time or mix up their answers"
            yield warning(("connections", at, "host"), message, f"{_JOIN.format(first)}; leave it if the device serves several clients")


_JOIN: Final = "make it one connection: move these devices under connections[{}]"


def _endpoint(connection: object) -> str | None:
    host, port = getattr(connection, "host", None), getattr(connection, "port", None)
    return f"{host.casefold().rstrip('.')}:{port}" if isinstance(host, str) and port is not None else None


# Uplinks


def _uplink_identities(site: Site) -> Iterator[Problem]:
    """A broker disconnects the older of two clients with one id (MQTT 5, 3.1.4), so they would push each other out for ever."""
    seen: dict[tuple[str, int, str], int] = {}
    nodes: dict[tuple[str, int], int] = {}
    for at, uplink in enumerate(site.uplinks):
        for host, port in _brokers(uplink):
            first = seen.setdefault((host, port, client_id(site, uplink)), at)
            if first != at and site.uplinks[first].name != uplink.name:
                message = f"uplinks[{first}] has the same client id on {host}:{port}: they would disconnect each other without end"
                yield error(("uplinks", at, "client_id"), message, "give each its own client_id, or none to have one made")
            if isinstance(uplink, SparkplugUplink) and nodes.setdefault((host, port), at) != at:
                message = (
                    f"uplinks[{nodes[host, port]}] is this same Sparkplug edge node on {host}:{port}: consumers would see births mixed"
                )
                yield error(("uplinks", at, "host"), message, "remove one of the two, or put the second broker into fallback of the first")


def _brokers(uplink: MqttUplink) -> Iterator[tuple[str, int]]:
    yield uplink.host.casefold(), uplink.port
    for broker in getattr(uplink, "fallback", ()):
        yield broker.host.casefold(), broker.port


PLACEHOLDERS: Final[tuple[tuple[type[MqttUplink], str, tuple[str, ...]], ...]] = (
    (PlainMqttUplink, "topic", ("group", "gateway", "connection", "device")),
    (SparkplugUplink, "ledger_topic", ("group", "gateway")),
)
"""Which keys are topic templates, and what may stand in them."""


def _topics(site: Site) -> Iterator[Problem]:
    for at, uplink in enumerate(site.uplinks):
        for kind, key, known in PLACEHOLDERS:
            if isinstance(uplink, kind):
                yield from _topic(("uplinks", at, key), getattr(uplink, key), known)


def _topic(path: tuple[str | int, ...], topic: str, known: tuple[str, ...]) -> Iterator[Problem]:
    possible = f"possible are {', '.join('{' + one + '}' for one in known)}"
    try:
        pieces = list(string.Formatter().parse(topic))
    except ValueError:
        yield error(path, "a brace is left open", f"write {{device}}; {possible}")
        return
    for text, name, form, conversion in pieces:
        if name is not None and (name not in known or form or conversion):
            yield error(path, f"{{{name}}} stands for nothing here", did_you_mean(name, list(known)) or possible)
        if any(sign in "+#\0" or not sign.isprintable() for sign in text):
            yield error(
                path, "a topic that is published to has no + or # or control characters", "they belong to subscriptions: remove them"
            )
    if topic.startswith("$"):
        yield error(path, "topics that begin with $ belong to the broker", "begin with something else")
    if topic.startswith("spBv1.0/"):
        yield error(path, "topics under spBv1.0/ belong to Sparkplug", "begin with something else")


def _links(site: Site) -> Iterator[Problem]:
    for at, uplink in enumerate(site.uplinks):
        path = ("uplinks", at)
        if uplink.password is not None and uplink.tls is None and not is_loopback(uplink.host):
            message = f"the password goes to {uplink.host} in the clear"
            yield warning((*path, "password"), message, "add tls: {ca_file: ...} and the broker's TLS port, mostly 8883")
        if uplink.password is not None and not uplink.username and uplink.protocol == "3.1.1":
            yield error((*path, "username"), "MQTT 3.1.1 has no password without a user name", 'add username, or protocol: "5"')
        if uplink.tls is None and uplink.port == 8883:
            yield warning(
                (*path, "port"), "8883 is the port of MQTT over TLS, and tls is missing", "add tls: {}, or use the plain port, mostly 1883"
            )
        if uplink.tls is not None and uplink.port == 1883:
            yield warning((*path, "port"), "1883 is the port of MQTT without TLS, and tls is set", "mostly it is port: 8883")
    if site.telemetry.metrics_port and not is_loopback(site.telemetry.metrics_host):
        message = "metrics are served to the network without a password"
        yield warning(("telemetry", "metrics_host"), message, "keep 127.0.0.1, or limit who reaches the port")


def _tls(site: Site) -> Iterator[Problem]:
    for path, struct in structs(site):
        if not isinstance(struct, Tls):
            continue
        if struct.key_file and not struct.cert_file:
            yield error(
                (*path, "cert_file"), "there is a key_file and no certificate that it belongs to", "add cert_file, or remove key_file"
            )
        if struct.cert_file and not struct.key_file:
            yield warning(
                (*path, "key_file"), "there is a cert_file and no key_file", "right only if the certificate's file holds its key too"
            )
        if struct.key_password is not None and not struct.cert_file:
            yield error((*path, "key_password"), "there is a password and no key that it opens", "add cert_file and key_file, or remove it")


# The journal


def _ages(site: Site) -> Iterator[Problem]:
    if site.journal.max_age_s < site.outage_budget_s:
        message = f"records die after {site.journal.max_age_s:g} s, before the outage budget of {site.outage_budget_s:g} s is over"
        yield error(("journal", "max_age_s"), message, "raise journal.max_age_s, or lower outage_budget_s")


def _outage_budget(site: Site, right: list[Any], drivers: Drivers) -> Iterator[Problem]:  # Any: the drivers' own Structs
    devices = [device for options in right for device in _driver_devices(options, drivers)]
    if site.outage_budget_s and (pushed := sum(1 for device in devices for tag in device.tags if tag.scan_s <= 0)):
        message = f"{pushed} tags are reported when their devices like, and the outage budget counts none of them"
        advice = "watch how fast the journal fills (holdfast journal stat), and give it room: journal.max_bytes"
        yield warning(("outage_budget_s",), message, advice)
    busy, quiet = budget.busy(devices), budget.quiet(devices)
    if busy.bytes_s * site.outage_budget_s <= site.journal.max_bytes:
        return
    sure = quiet.bytes_s * site.outage_budget_s > site.journal.max_bytes
    rate = quiet if sure else busy
    needed = rate.bytes_s * site.outage_budget_s
    held = site.journal.max_bytes / rate.bytes_s
    message = (
        f"the journal holds {_span(held)} of an outage, not the {_span(site.outage_budget_s)} that outage_budget_s asks for: "
        f"{rate.values_s:,.0f} values/s fill {rate.bytes_s:,.0f} bytes/s{'' if sure else ', if every value changes at every scan'}; "
        f"that is {needed:,.0f} bytes, max_bytes is {site.journal.max_bytes:,}"
    )
    advice = (
        f"raise journal.max_bytes to {_round_up(needed):,}, or read slower (scan_s), or report less (deadband with max_silence_s); "
        f"or accept less with outage_budget_s: {_round_down(held)}"
    )
    yield Problem("journal.max_bytes", message, advice, "error" if sure else "warning")


def _driver_devices(options: Any, drivers: Drivers) -> Iterable[Device]:  # Any: the driver's own Struct
    driver: Driver = drivers[options.__struct_config__.tag]
    return driver.devices(options)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _round_up(size: float) -> int:
    step = 16 * 1024**2
    return -(-int(size) // step) * step


def _round_down(seconds: float) -> int:
    return int(seconds) // 60 * 60 if seconds >= 120 else int(seconds)


RULES: Final[tuple[Callable[[Site], Iterable[Problem]], ...]] = (
    _names, access.problems, _topic_names, _one_line_each, _uplink_identities, _topics, _links, _tls, _ages,
)  # fmt: skip


def is_loopback(host: str) -> bool:
    """True for this machine's own addresses."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"
