"""The Structs that ARE the configuration of a CoAP connection: types, defaults, limits, units and descriptions.

A device is a CoAP host; a connection is a group of devices that share how patient the gateway is, certificates, and the folder in which
OSCORE counts. Each device has resources, each resource tags: the resource says where to ask and how often, the tag where its value
lies in what comes. What cannot be said by types and limits is checked in ``check.py``. Nothing here touches the network.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocols.options import Host, Name
from protocols.payload.formats import Format
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.secret import Secret
from protocols.tls import Tls

Scheme = Literal["coap", "coap+tcp", "coaps+tcp"]
PORTS: Final[dict[str, int]] = {"coap": 5683, "coap+tcp": 5683, "coaps+tcp": 5684}
Algorithm = Literal["AES-CCM-16-64-128", "AES-CCM-16-128-128", "ChaCha20/Poly1305", "A128GCM", "A256GCM"]

Hex = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2})*$", max_length=64)]
Path = Annotated[
    str,
    Meta(pattern=r"^/[^\x00-\x1f\x7f?#]*$", max_length=512, description="Path of the resource, not escaped: /sensors/t1."),
]
Period = Annotated[float, Meta(ge=0.02, le=86400)]


class Oscore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A security context that both sides were given (RFC 8613, 3.2). The ids are the gateway's view; the device has them swapped."""

    sender_id: Annotated[Hex, Meta(description="The gateway's id, hexadecimal, at most 7 bytes; may be empty.")]
    recipient_id: Annotated[Hex, Meta(description="The device's id, hexadecimal.")]
    master_secret: Annotated[Secret, Meta(description="Where the master secret lies, written in hexadecimal, 16 bytes or more.")]
    master_salt: Annotated[Hex, Meta(description="Master salt, hexadecimal.")] = ""
    id_context: Annotated[Hex | None, Meta(description="ID context, hexadecimal; none unless both sides have it.")] = None
    algorithm: Annotated[Algorithm, Meta(description="AEAD algorithm.")] = "AES-CCM-16-64-128"
    hash: Annotated[Literal["sha256", "sha384", "sha512"], Meta(description="Hash of the key derivation.")] = "sha256"


class Resource(PayloadOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One resource of a device: what is asked for, how, and what lies in the answer."""

    path: Path
    query: Annotated[
        tuple[Annotated[str, Meta(max_length=255)], ...], Meta(max_length=16, description="Uri-Query, one entry for each part: unit=C.")
    ] = ()
    mode: Annotated[
        Literal["observe", "poll"],
        Meta(description="observe: the device says when something changed (RFC 7641); one that cannot is polled. poll: asked each scan_s."),
    ] = "observe"
    accept: Annotated[Format | None, Meta(description="Form to ask for; empty lets the device choose.")] = None
    scan_s: Annotated[
        Period | None,
        Meta(description="Period of polling, and of looking after an observation, in seconds; empty: the device's."),
    ] = None
    refresh_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86400,
            description="Without news an observed value is asked for anew after this time, or after Max-Age if that is less.",
        ),
    ] = 300.0
    write_path: Annotated[Path | None, Meta(description="Where commands go; empty: to path.")] = None
    write_with: Annotated[Literal["put", "post"], Meta(description="Method that writes.")] = "put"
    tags: Annotated[tuple[PayloadTag, ...], Meta(max_length=4096, description="Its values.")] = ()


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One CoAP host."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    host: Annotated[Host, Meta(description="Host name or IP address.")]
    port: Annotated[Annotated[int, Meta(ge=1, le=65535)] | None, Meta(description="Port; empty: 5683, for coaps+tcp 5684.")] = None
    scheme: Annotated[Scheme, Meta(description="coap: UDP. coap+tcp: TCP (RFC 8323). coaps+tcp: TLS.")] = "coap"
    confirmable: Annotated[bool, Meta(description="Whether reads over UDP are repeated until they are answered; writes always are.")] = True
    block_size: Annotated[
        Literal[16, 32, 64, 128, 256, 512, 1024], Meta(description="Largest block of a long body, in bytes; smaller for lossy radios.")
    ] = 1024
    scan_s: Annotated[Period, Meta(description="Period of its resources, in seconds.")] = 10.0
    oscore: Annotated[Oscore | None, Meta(description="Keys, where the device speaks OSCORE (RFC 8613).")] = None
    resources: Annotated[tuple[Resource, ...], Meta(max_length=1000, description="What is asked for.")] = ()

    @property
    def where(self) -> str:
        """Host and port, for a person."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port or PORTS[self.scheme]}"


class Coap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="coap"):
    """CoAP devices that are asked and observed."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    timeout_s: Annotated[float, Meta(ge=0.05, le=120, description="Longest wait for an answer, repetitions included, in seconds.")] = 10.0
    ack_timeout_s: Annotated[
        float, Meta(ge=0.05, le=60, description="Wait before a confirmable message is repeated first; doubles each time (RFC 7252: 2).")
    ] = 2.0
    retransmits: Annotated[int, Meta(ge=0, le=8, description="How often a confirmable message is repeated (RFC 7252: 4).")] = 4
    retry_max_s: Annotated[float, Meta(ge=1, le=3600, description="Longest pause between tries to reach a silent device, in seconds.")] = (
        60.0
    )
    tls: Annotated[Tls, Meta(description="Certificates, for coaps+tcp.")] = Tls()
    state_folder: Annotated[
        str,
        Meta(max_length=4096, description="Folder where OSCORE's sequence numbers survive a restart; needed where a device has oscore."),
    ] = ""
    devices: Annotated[tuple[Device, ...], Meta(max_length=2000, description="The devices of this connection.")] = ()
