"""The Structs of faces: how PLCs and SCADA see the gateway's tags, and change them where they may. Closed unless configured."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.model import Kind
from protocols.options import Host, Name

Order = Literal["big", "little"]


class Face(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every face has. Not a type of its own."""

    name: Annotated[Name, Meta(description="Name of the face, unique in the site.")]
    host: Annotated[Host, Meta(description="Address to listen on; 127.0.0.1 is seen by this machine alone.")] = "127.0.0.1"
    clients: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(max_length=256, description="Who may connect: addresses or networks, 192.0.2.7 or 192.0.2.0/24."),
    ] = ("127.0.0.0/8", "::1")
    writable: Annotated[bool, Meta(description="Whether clients may write the tags that are writable; each write is a command.")] = False
    command_timeout_s: Annotated[float, Meta(gt=0, le=60, description="How long a write may take until it is given up, in seconds.")] = 5.0


def networks(clients: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """``clients`` of a face as networks. Raises ValueError naming the one that is none."""
    return tuple(ipaddress.ip_network(each, strict=False) for each in clients)


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tag in a Modbus register map."""

    device: Annotated[str, Meta(min_length=1, max_length=128, description="Name of the device.")]
    tag: Annotated[str, Meta(min_length=1, max_length=255, description="Name of its tag.")]
    at: Annotated[
        Annotated[str, Meta(min_length=1, max_length=40)] | Annotated[int, Meta(ge=1, le=465536)],
        Meta(description="Where clients find it: holding:0, input:10, coil:3, discrete:4, or Modicon 40001, 300001."),
    ]
    what: Annotated[Literal["value", "quality"], Meta(description="quality: 0 good, 1 uncertain, 2 bad, as a uint16.")] = "value"
    kind: Annotated[Kind | None, Meta(description="What the registers hold; empty takes the tag's own.")] = None
    scale: Annotated[float, Meta(description="value = register * scale.")] = 1.0
    length: Annotated[int, Meta(ge=0, le=246, description="Bytes of a string or of bytes; 0 takes 32.")] = 0


class ModbusFace(Face, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-server"):
    """The gateway as a Modbus TCP server."""

    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes a free one.")] = 502
    unit_id: Annotated[int, Meta(ge=1, le=247, description="Unit id under which it answers; 0 and 255 mean it as well.")] = 1
    registers: Annotated[
        tuple[Register, ...],
        Meta(max_length=65536, description="The register map; empty makes one of all tags (print it with holdfast register-map)."),
    ] = ()
    word_order: Annotated[Order, Meta(description="Which register of several is first; big = most significant.")] = "big"
    byte_order: Annotated[Order, Meta(description="Which byte of a register is first; big = as Modbus says.")] = "big"
    when_bad: Annotated[
        Literal["no-value", "last", "exception"],
        Meta(description="What a bad value is read as: NaN or the kind's limit, the last good value, or exception 4 for the request."),
    ] = "no-value"
    max_clients: Annotated[int, Meta(ge=1, le=256, description="Most clients at once.")] = 8
    idle_close_s: Annotated[float, Meta(ge=1, le=86400, description="Silence after which a client is cut off, in seconds.")] = 120.0


AnyFace = ModbusFace
