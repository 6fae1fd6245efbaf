"""Everything that is wrong with a CoAP connection beyond what types and limits can say: all of it, with path and advice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocols.coap.config import Coap, Device, Oscore, Resource
from protocols.contract import Problem
from protocols.options import error, unique_names, warning
from protocols.payload import COAP_FORMAT_OF, payload_problems, problems_of_tag

LONGEST_ID: Final = 7
"""Bytes of a sender or recipient id with a nonce of 13 bytes (RFC 8613, 3.3); 6 with the others, whose nonce has 12."""
SHORT_NONCE: Final = ("ChaCha20/Poly1305", "A128GCM", "A256GCM")


def check(options: Coap) -> list[Problem]:
    """All problems of ``options``; paths are relative to it."""
    problems = list(unique_names(options.devices, "devices", "device"))
    contexts: dict[tuple[str, str, str], int] = {}
    for at, device in enumerate(options.devices):
        path = f"devices[{at}]"
        problems.extend(_device(device, path))
        if device.oscore is not None:
            problems.extend(oscore_problems(device.oscore, f"{path}.oscore"))
            problems.extend(_shared(device.oscore, at, contexts))
            if not options.state_folder:
                message = "OSCORE must never use a sequence number twice, and nothing says where they are kept"
                problems.append(error("state_folder", message, "give a folder that survives restarts, such as /var/lib/holdfast/oscore"))
        elif device.scheme == "coap" and any(tag.writable for resource in device.resources for tag in resource.tags):
            message = "commands go over plain UDP: whoever is on the network can send them too"
            problems.append(warning(f"{path}.oscore", message, "give the device OSCORE keys if it can; else keep its network to yourself"))
    if options.ack_timeout_s >= options.timeout_s and any(device.scheme == "coap" for device in options.devices):
        message = f"messages are repeated after {options.ack_timeout_s:g} s, and given up after {options.timeout_s:g} s"
        problems.append(warning("ack_timeout_s", message, "make it a third of timeout_s or less, or nothing is ever repeated"))
    return problems


def _device(device: Device, path: str) -> Iterator[Problem]:
    tags = [(tag, f"{path}.resources[{at}].tags[{place}]") for at, one in enumerate(device.resources) for place, tag in enumerate(one.tags)]
    places: dict[str, str] = {}
    for tag, where in tags:
        if places.setdefault(tag.name, where) != where:
            yield error(f"{where}.name", f"{places[tag.name]} is called {tag.name!r} too", "give each tag of a device its own name")
    asked: dict[tuple[str, tuple[str, ...]], int] = {}
    for at, resource in enumerate(device.resources):
        where = f"{path}.resources[{at}]"
        if asked.setdefault((resource.path, resource.query), at) != at:
            message = f"{path}.resources[{asked[resource.path, resource.query]}] asks for {resource.path} too"
            yield warning(f"{where}.path", message, "put their tags into one resource: it is asked for once then")
        yield from _resource(resource, where)


def _resource(resource: Resource, path: str) -> Iterator[Problem]:
    yield from payload_problems(resource, path)
    for at, tag in enumerate(resource.tags):
        where = f"{path}.tags[{at}]"
        yield from problems_of_tag(tag, resource, where)
        if tag.writable and resource.format != "auto" and resource.format not in COAP_FORMAT_OF:
            yield error(f"{where}.writable", f"nothing is written as {resource.format}", "take writable away, or give another format")
    if not resource.tags:
        yield warning(f"{path}.tags", "it has no tags, and is asked all the same", "give it tags, or take the resource away")
    if resource.accept is not None:
        if resource.accept not in COAP_FORMAT_OF:
            yield error(f"{path}.accept", f"CoAP has no content format for {resource.accept}", f"one of {', '.join(COAP_FORMAT_OF)}")
        elif resource.format not in ("auto", resource.accept):
            yield warning(f"{path}.accept", f"{resource.accept} is asked for and read as {resource.format}", "make them the same")
    if any(len(part.encode()) > 255 for part in resource.path.split("/")):
        yield error(f"{path}.path", "a part of it has more than 255 bytes", "correct the path: nothing has such a name (RFC 7252, 5.10)")


def oscore_problems(oscore: Oscore, path: str) -> Iterator[Problem]:
    """What is wrong with one security context that stands at ``path``."""
    longest = LONGEST_ID - (oscore.algorithm in SHORT_NONCE)
    for field in ("sender_id", "recipient_id"):
        if len(getattr(oscore, field)) > 2 * longest:
            yield error(f"{path}.{field}", f"an id has at most {longest} bytes with {oscore.algorithm}", "use a shorter one on both sides")
    if oscore.sender_id.lower() == oscore.recipient_id.lower():
        yield error(f"{path}.recipient_id", "it is the sender's id too", "the two sides must have different ids (RFC 8613, 3.3)")


def _shared(oscore: Oscore, at: int, contexts: dict[tuple[str, str, str], int]) -> Iterator[Problem]:
    """Two devices must not use one context: they would use numbers twice."""
    key = (oscore.sender_id.lower(), oscore.recipient_id.lower(), (oscore.id_context or "").lower() + repr(oscore.master_secret))
    if contexts.setdefault(key, at) != at:
        message = f"devices[{contexts[key]}] has the same keys and ids"
        yield error(f"devices[{at}].oscore", message, "give each device its own master secret, or other ids")
