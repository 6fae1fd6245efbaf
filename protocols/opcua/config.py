"""The Structs that ARE the configuration of an OPC UA connection: types, defaults, limits, units and descriptions.

A connection is one server; a device is a group of its nodes under one name. What cannot be said by types and limits is
checked in ``check.py``. Nothing here touches the network.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocols.options import Name, TagOptions
from protocols.secret import Secret

Mode = Literal["subscribe", "poll"]
Seconds = Annotated[float, Meta(ge=0, le=86400)]
DEFAULT_FOLDER: Final = "/var/lib/holdfast/opcua"


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which events a tag brings; each is one value, a JSON object."""

    severity: Annotated[int, Meta(ge=1, le=1000, description="Only events of at least this severity.")] = 1
    type: Annotated[
        str, Meta(max_length=4096, description="Node id of an event type: only events of it and of its subtypes; empty for all.")
    ] = ""
    fields: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...],
        Meta(max_length=32, description="Further fields of the event, by browse name; A/B for a field of a field."),
    ] = ()


class Tag(TagOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value of a server."""

    at: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="Node id with its namespace's URI, nsu=URI;s=NAME; > FIELD and > [3] go into a value, > METHOD() calls one.",
            examples=["nsu=http://example.com/plant;s=Boiler.Pressure"],
        ),
    ]
    event: Annotated[Event | None, Meta(description="Set: the tag brings the events of the object at the node id.")] = None
    sampling_s: Annotated[Seconds | None, Meta(description="How often the server looks at the value, in seconds; 0 as fast as it can.")] = (
        None
    )
    queue_size: Annotated[
        Annotated[int, Meta(ge=1, le=10000)] | None, Meta(description="Values that the server keeps between two publishes.")
    ] = None
    server_deadband: Annotated[float, Meta(ge=0, description="The server leaves out changes up to this size, before scaling.")] = 0.0
    server_deadband_percent: Annotated[
        float, Meta(ge=0, le=100, description="The server leaves out changes up to this share of the value's range (EURange), in percent.")
    ] = 0.0


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of nodes."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    mode: Annotated[Mode | None, Meta(description="subscribe or poll; empty takes the connection's.")] = None
    scan_s: Annotated[float, Meta(ge=0.01, le=86400, description="Period of its tags when polled, in seconds.")] = 1.0
    publishing_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=3600)] | None,
        Meta(description="How often the server sends changes; empty: as the connection."),
    ] = None
    sampling_s: Annotated[
        Seconds | None, Meta(description="How often the server looks at the values, in seconds; empty takes the connection's.")
    ] = None
    queue_size: Annotated[
        Annotated[int, Meta(ge=1, le=10000)] | None,
        Meta(description="Values of each tag that the server keeps between two publishes; empty takes the connection's."),
    ] = None
    tags: Annotated[tuple[Tag, ...], Meta(max_length=65536, description="Its values.")] = ()


class Security(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How messages are protected, and whom we trust. The deprecated policies do not exist here."""

    policy: Annotated[
        Literal["none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"],
        Meta(description="Security policy; none only where the network is trusted."),
    ] = "Basic256Sha256"
    mode: Annotated[Literal["sign", "sign-and-encrypt"], Meta(description="Whether messages are only signed, or also encrypted.")] = (
        "sign-and-encrypt"
    )
    folder: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="Folder of own/, trusted/, issuers/, crl/ and rejected/; made when needed.",
        ),
    ] = DEFAULT_FOLDER
    cert_file: Annotated[
        str, Meta(max_length=4096, description="The gateway's application certificate (RSA, PEM or DER); empty makes one at first use.")
    ] = ""
    key_file: Annotated[str, Meta(max_length=4096, description="Its private key (PEM).")] = ""
    key_password: Annotated[Secret | None, Meta(description="Where the private key's password lies.")] = None


class Anonymous(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="by", tag="anonymous"):
    """Nobody in particular."""


class UserName(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="by", tag="password"):
    """A user with a password. It is encrypted for the server, or not sent."""

    name: Annotated[str, Meta(min_length=1, max_length=255, description="Name of the user.")]
    password: Annotated[Secret, Meta(description="Where the password lies.")]
    in_the_clear: Annotated[bool, Meta(description="Send the password readable where the server takes it in no other way.")] = False


class X509(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="by", tag="certificate"):
    """A user with a certificate."""

    cert_file: Annotated[str, Meta(min_length=1, max_length=4096, description="The user's certificate (RSA, PEM or DER).")]
    key_file: Annotated[str, Meta(min_length=1, max_length=4096, description="Its private key (PEM).")]
    key_password: Annotated[Secret | None, Meta(description="Where the private key's password lies.")] = None


User = Anonymous | UserName | X509


class OpcUa(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="opcua"):
    """An OPC UA server."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    endpoint: Annotated[
        str,
        Meta(
            pattern=r"^opc\.tcp://[^/\s@]{1,255}(/\S{0,1000})?$",
            description="Address of the server, opc.tcp://HOST:PORT/PATH.",
            examples=["opc.tcp://192.168.10.30:4840"],
        ),
    ]
    security: Annotated[Security, Meta(description="Policy, certificates, trust.")] = Security()
    user: Annotated[User, Meta(description="As whom we come.")] = Anonymous()
    application_uri: Annotated[
        str, Meta(min_length=1, max_length=1000, description="Who we say we are; the same text stands in our certificate.")
    ] = "urn:holdfast:gateway"
    timeout_s: Annotated[float, Meta(ge=0.1, le=120, description="Longest wait for an answer, in seconds.")] = 5.0
    keepalive_s: Annotated[
        float, Meta(ge=0.1, le=3600, description="A subscription without news says so this often; later it is taken for lost.")
    ] = 5.0
    keep_s: Annotated[
        float,
        Meta(ge=10, le=3600, description="How long the server keeps session and subscriptions for us after the connection broke."),
    ] = 60.0
    mode: Annotated[Mode, Meta(description="subscribe: the server sends what changes; poll: it is asked on a schedule.")] = "subscribe"
    publishing_s: Annotated[float, Meta(ge=0.01, le=3600, description="How often the server sends changes, in seconds.")] = 1.0
    sampling_s: Annotated[
        Seconds | None, Meta(description="How often the server looks at the values, in seconds; empty: as often as it publishes.")
    ] = None
    queue_size: Annotated[int, Meta(ge=1, le=10000, description="Values of each tag that the server keeps between two publishes.")] = 10
    discard: Annotated[Literal["oldest", "newest"], Meta(description="Which value the server throws away when a tag's queue is full.")] = (
        "oldest"
    )
    max_nodes: Annotated[
        int, Meta(ge=1, le=10000, description="Most nodes in one request; the server's own limit holds where it is lower.")
    ] = 1000
    devices: Annotated[tuple[Device, ...], Meta(max_length=1000, description="The devices: groups of this server's nodes.")] = ()
