"""Everything that is wrong with an OPC UA connection beyond what types and limits can say: all of it, with path and advice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocols.contract import Problem
from protocols.model import Kind
from protocols.opcua.config import Device, OpcUa, Tag, UserName
from protocols.opcua.nodes import Impossible, Place, parse, parse_node
from protocols.opcua.plan import is_polled
from protocols.options import TEXT, error, tag_problems, unique_names, warning

MANY_SUBSCRIPTIONS: Final = 10
ITEMS_PER_SECOND: Final = 20_000


def check(options: OpcUa) -> list[Problem]:
    """All problems of ``options``; paths are relative to it."""
    problems = [*unique_names(options.devices, "devices", "device"), *_security(options), *_pace(options)]
    for at, device in enumerate(options.devices):
        problems.extend(_device(device, options, f"devices[{at}]"))
    return problems


def _security(options: OpcUa) -> Iterator[Problem]:
    security, user = options.security, options.user
    if security.policy == "none":
        yield warning(
            "security.policy",
            "nothing proves who the server is, and everybody on the way can read and change what is sent",
            "write Basic256Sha256 or better, unless the server has none and the network is trusted",
        )
        if security.cert_file or security.key_file:
            yield warning("security.cert_file", "without a security policy no certificate is used", "take it away, or name a policy")
        if isinstance(user, UserName):
            yield warning("user", "whoever sits between can take the password", "choose a security policy")
    if bool(security.cert_file) != bool(security.key_file):
        yield error("security.cert_file", "a certificate needs its key, and a key its certificate", "write both, or neither")


def _pace(options: OpcUa) -> Iterator[Problem]:
    intervals = {device.publishing_s or options.publishing_s for device in options.devices if not is_polled(device, options)}
    if len(intervals) > MANY_SUBSCRIPTIONS:
        message = f"{len(intervals)} publishing intervals make {len(intervals)} subscriptions, and many servers take fewer"
        yield warning("devices", message, "let devices share a publishing_s")
    if options.keep_s < 2 * options.keepalive_s:
        message = f"the server forgets us after {options.keep_s:g} s, and we look for it every {options.keepalive_s:g} s"
        yield error("keep_s", message, "raise keep_s to three times keepalive_s at least")
    polled = [device for device in options.devices if is_polled(device, options)]
    rate = sum(len(device.tags) / device.scan_s for device in polled)
    if rate > ITEMS_PER_SECOND:
        yield warning("devices", f"{rate:.0f} values a second are polled", "subscribe instead, or raise scan_s")


def _device(device: Device, options: OpcUa, path: str) -> Iterator[Problem]:
    yield from unique_names(device.tags, f"{path}.tags", "tag of a device")
    polled = is_polled(device, options)
    for field in ("publishing_s", "sampling_s", "queue_size"):
        if polled and getattr(device, field) is not None:
            yield warning(f"{path}.{field}", f"the device is polled, so {field} means nothing", "take it away, or write mode: subscribe")
    for at, tag in enumerate(device.tags):
        yield from _tag(tag, f"{path}.tags[{at}]", polled=polled)


def _tag(tag: Tag, path: str, *, polled: bool) -> Iterator[Problem]:
    yield from tag_problems(tag, path)
    try:
        place = parse(tag.at)
    except Impossible as reason:
        yield error(f"{path}.at", str(reason), reason.advice)
        return
    if place.node.uri is None and place.node.namespace > 1:
        yield warning(
            f"{path}.at",
            f"ns={place.node.namespace} is an index that the server may give to another namespace after a restart",
            "write nsu=URI instead, as holdfast browse shows it",
        )
    if place.node.uri is None and place.node.namespace == 1:
        yield warning(f"{path}.at", "ns=1 is the server's own namespace, with another URI on each server", "write nsu=URI instead")
    if tag.event is not None:
        yield from _event(tag, place, path)
    elif place.method:
        yield from _method(tag, path)
    else:
        yield from _value(tag, place, path, polled=polled)


def _event(tag: Tag, place: Place, path: str) -> Iterator[Problem]:
    if tag.kind is not Kind.STRING:
        yield error(f"{path}.kind", f"an event is a JSON object, and {tag.kind} holds none", "write kind: string")
    if place.steps or place.method:
        yield error(
            f"{path}.at",
            "events come from an object, not from a part of a value",
            "write the node id alone (i=2253 is the server)",
        )
    if tag.writable:
        yield error(f"{path}.writable", "events cannot be written", "take writable away")
    if tag.event is not None and tag.event.type:
        try:
            parse_node(tag.event.type)
        except Impossible as reason:
            yield error(f"{path}.event.type", str(reason), reason.advice)


def _method(tag: Tag, path: str) -> Iterator[Problem]:
    if not tag.writable:
        yield error(f"{path}.writable", "a method can only be called", "write writable: true, or take the tag away")


def _value(tag: Tag, place: Place, path: str, *, polled: bool) -> Iterator[Problem]:
    if tag.writable and place.steps and not (len(place.steps) == 1 and isinstance(place.steps[0], int)):
        yield error(f"{path}.writable", "a part of a structure cannot be written alone", "take writable away, or name an array's element")
    if (tag.server_deadband or tag.server_deadband_percent) and (tag.kind in (*TEXT, Kind.BOOL) or place.steps):
        yield error(f"{path}.server_deadband", "only a number as a whole has a deadband", "take it away; deadband works in the gateway")
    if tag.server_deadband and tag.server_deadband_percent:
        yield error(f"{path}.server_deadband_percent", "a server knows one deadband a tag", "keep one of the two")
    if polled and (tag.server_deadband or tag.server_deadband_percent):
        yield warning(f"{path}.server_deadband", "a polled tag has none at the server", "take it away, or write mode: subscribe")
