"""What is wrong with an S7 connection beyond what types and limits say. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from protocols.contract import Problem
from protocols.model import Kind
from protocols.options import TEXT, error, tag_problems, unique_names
from protocols.s7.address import LETTER, WIDTH, Address, Area, BadAddress, parse
from protocols.s7.config import S7, Tag


def check(options: S7) -> list[Problem]:
    return list(_all(options))


def _all(options: S7) -> Iterator[Problem]:
    yield from unique_names(options.devices, "devices", "device")
    for place, device in enumerate(options.devices):
        path = f"devices[{place}].tags"
        yield from unique_names(device.tags, path, "tag")
        for at, tag in enumerate(device.tags):
            yield from tag_problems(tag, f"{path}[{at}]")
            yield from _tag(tag, f"{path}[{at}]")


def _tag(tag: Tag, path: str) -> Iterator[Problem]:
    if tag.kind in TEXT and not tag.length:
        yield error(f"{path}.length", f"a {tag.kind} needs its length", "write n of STRING[n], or the number of bytes")
    if tag.kind not in TEXT and tag.length:
        yield error(f"{path}.length", f"a {tag.kind} has no length of its own", "take length away")
    try:
        place = parse(tag.at)
    except BadAddress as bad:
        said, _, advice = str(bad).partition(": ")
        yield error(f"{path}.at", said, advice)
        return
    wanted = WIDTH.get(tag.kind, 8)
    if (place.width or 0) != (1 if wanted > 4 else wanted):
        yield error(f"{path}.at", f"{tag.at} is no place of a {tag.kind}", _letter(tag.kind, wanted))
    if tag.writable and place.area is Area.INPUTS:
        yield error(f"{path}.writable", "the process image of inputs is the controller's own", "take writable away, or take another tag")
    yield from _fits(tag, place, path)


def _letter(kind: Kind, wanted: int) -> str:
    return f"a {kind} is written with {LETTER[wanted]}" if wanted <= 4 else f"write a {kind} by its first byte, with B"


def _fits(tag: Tag, place: Address, path: str) -> Iterator[Problem]:
    if place.byte + size(tag) > 65536:
        yield error(f"{path}.at", f"{tag.at} and what follows is beyond byte 65535", "check the address")


def size(tag: Tag) -> int:
    """Bytes that a tag takes; a STRING has two before its characters (greatest length, length)."""
    if tag.kind in TEXT:
        return tag.length + (2 if tag.kind is Kind.STRING else 0)
    return max(1, WIDTH[tag.kind])
