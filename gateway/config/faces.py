"""The Structs of faces: how PLCs and SCADA see the gateway's tags, and change them where they may. Closed unless configured."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.model import Kind
from protocols.options import Host, Name
from protocols.secret import Secret

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


Policy = Literal["none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class OpcuaSecurity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an OPC UA face is protected, and which programs it trusts."""

    policies: Annotated[
        tuple[Policy, ...],
        Meta(min_length=1, max_length=4, description="Security policies that are offered, always sign and encrypt; none only where said."),
    ] = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
    folder: Annotated[
        Path,
        Meta(description="Folder of own/, trusted/, issuers/, crl/ and rejected/, and of users/ with the same; made when needed."),
    ] = "/var/lib/holdfast/opcua-server"
    cert_file: Annotated[
        str, Meta(max_length=4096, description="Certificate of the face (RSA, PEM or DER); empty makes one at first use.")
    ] = ""
    key_file: Annotated[str, Meta(max_length=4096, description="Its private key (PEM).")] = ""
    key_password: Annotated[Secret | None, Meta(description="Where the private key's password lies.")] = None


class FaceUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Somebody who may enter with a password."""

    name: Annotated[str, Meta(min_length=1, max_length=255, description="Name of the user.")]
    password: Annotated[Secret, Meta(description="Where the password lies.")]


class OpcuaFace(Face, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="opcua-server"):
    """The gateway as an OPC UA server."""

    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes a free one.")] = 4840
    security: Annotated[OpcuaSecurity, Meta(description="Policies, certificates, trust.")] = OpcuaSecurity()
    users: Annotated[tuple[FaceUser, ...], Meta(max_length=256, description="Who may enter with a name and a password.")] = ()
    user_certificates: Annotated[
        bool, Meta(description="Whether users may enter with a certificate that lies in users/trusted of security.folder.")
    ] = False
    anonymous: Annotated[bool, Meta(description="Whether trusted programs may enter without a user.")] = False
    refresh_s: Annotated[float, Meta(ge=0.05, le=3600, description="How often monitored values are looked at, in seconds.")] = 1.0
    max_clients: Annotated[int, Meta(ge=1, le=256, description="Most sessions at once.")] = 16
    max_subscriptions: Annotated[int, Meta(ge=1, le=1000, description="Most subscriptions of one session.")] = 20
    max_items: Annotated[int, Meta(ge=1, le=1_000_000, description="Most monitored items of one session.")] = 20_000
    max_message_bytes: Annotated[
        int, Meta(ge=8192, le=4 * 1024**2, description="Longest request; a long one is read in one go, while everything else waits.")
    ] = 256 * 1024


AnyFace = ModbusFace | OpcuaFace
