"""The Structs that ARE the configuration of an SCPI connection, what is wrong with one, and the devices that it means. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from protocols.contract import Problem
from protocols.model import Device, Kind
from protocols.options import Host, Name, TagOptions, error, tag_problems, unique_names


class ScpiTag(TagOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value of an instrument."""

    at: Annotated[str, Meta(min_length=2, max_length=255, description="The query that gives it, such as MEASure:VOLTage?")]
    write: Annotated[
        str, Meta(max_length=255, description="The command that sets it, with {value}; empty: the query without its ? and the value.")
    ] = ""

    @property
    def command(self) -> str:
        return self.write or f"{self.at.removesuffix('?')} {{value}}"


class ScpiDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of values of the instrument, such as one of its channels."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    scan_s: Annotated[float, Meta(ge=0.01, le=86400, description="Period of its tags, in seconds.")] = 1.0
    tags: Annotated[tuple[ScpiTag, ...], Meta(max_length=1000, description="Its values.")] = ()


class Scpi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="scpi"):
    """SCPI over TCP (raw socket): one instrument."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    host: Annotated[Host, Meta(description="Host name or IP address.")]
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 5025
    timeout_s: Annotated[float, Meta(ge=0.05, le=60, description="Longest wait for the connection and for an answer, in seconds.")] = 2.0
    devices: Annotated[tuple[ScpiDevice, ...], Meta(max_length=100, description="Its channels.")] = ()


def check_scpi(options: Scpi) -> Iterator[Problem]:
    """Everything that types and limits cannot say."""
    yield from unique_names(options.devices, "devices", "device")
    for place, device in enumerate(options.devices):
        path = f"devices[{place}].tags"
        yield from unique_names(device.tags, path, "tag")
        for at, tag in enumerate(device.tags):
            yield from _tag(tag, f"{path}[{at}]")


def _tag(tag: ScpiTag, path: str) -> Iterator[Problem]:
    yield from tag_problems(tag, path)
    if tag.kind is Kind.BYTES:
        yield error(f"{path}.kind", "SCPI block data is not read", "take string, or another kind")
    if not tag.at.endswith("?") or not _is_one_line(tag.at):
        yield error(f"{path}.at", f"{tag.at!r} is not one query", "write one query that ends with ?, as in the instrument's manual")
    if tag.writable and (tag.command.count("{value}") != 1 or not _is_one_line(tag.command)):
        yield error(f"{path}.write", f"{tag.command!r} is not one command with {{value}} in it", "write it as VOLTage {value}")


def _is_one_line(text: str) -> bool:
    return text.isascii() and text.isprintable() and ";" not in text


def devices_of(options: Scpi) -> Sequence[Device]:
    return [Device(options.name, each.name, tuple(tag.tag(each.scan_s) for tag in each.tags)) for each in options.devices]
