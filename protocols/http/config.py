"""The Structs that ARE the configuration of HTTP connections: the polling client and the webhook receiver.

A client's device is a group of requests, each with the tags that its answer carries; a webhook's device is a path that
somebody posts to. What types and limits cannot say is checked in ``check.py``. Nothing here touches the network.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.options import Name
from protocols.payload import Format, PayloadOptions, PayloadTag
from protocols.secret import Secret
from protocols.tls import ServerTls, Tls

HeaderName = Annotated[
    str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$", description="Name of a header (RFC 9110, 5.1), in any case.")
]
OptionalHeader = Annotated[
    str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}$", description="Name of a header (RFC 9110, 5.1), in any case, or nothing.")
]
HeaderValue = Annotated[str, Meta(pattern=r"^[ -~]{1,200}$", description="Printable ASCII.")]
Path = Annotated[
    str,
    Meta(
        pattern=r"^/[\x21-\x7e]{0,1023}$",
        description="Path at the host, with what is no URL character already percent-encoded: /api/v1/values.",
    ),
]
Period = Annotated[float, Meta(ge=0.05, le=86400)]


# ------------------------------------------------------------------------------------------------------ the client


class Basic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="basic"):
    """Name and password in each request (RFC 7617): for https."""

    username: Annotated[str, Meta(pattern=r"^[^:\x00-\x1f\x7f]{1,255}$", description="User name, without a colon.")]
    password: Annotated[Secret, Meta(description="Where the password lies.")]


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="digest"):
    """A proof of the password instead of the password (RFC 7616: SHA-256, SHA-512, MD5 for old equipment)."""

    username: Annotated[str, Meta(pattern=r"^[^:\x00-\x1f\x7f]{1,255}$", description="User name, without a colon.")]
    password: Annotated[Secret, Meta(description="Where the password lies.")]


class Bearer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="bearer"):
    """A token in each request (RFC 6750): for https."""

    token: Annotated[Secret, Meta(description="Where the token lies.")]


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="api-key"):
    """A key in a header of its own: for https."""

    header: Annotated[HeaderName, Meta(description="Header that carries the key.")] = "X-API-Key"
    key: Annotated[Secret, Meta(description="Where the key lies.")]


ClientAuth = Basic | Digest | Bearer | ApiKey


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The request that writes a tag. Its body is what write_as says, unless path or form carry the value."""

    path: Annotated[Path, Meta(description="Path; {value} in it is the value, percent-encoded: /relay/0?turn={value}.")]
    method: Annotated[Literal["PUT", "POST", "PATCH", "GET"], Meta(description="Method; GET for devices that switch by it.")] = "PUT"
    form: Annotated[
        str, Meta(max_length=1024, description="Body of a web form with {value} in the value's place, percent-encoded: temp={value}.")
    ] = ""
    format: Annotated[Format | None, Meta(description="Format of the body; empty takes that of the request that reads.")] = None
    true_as: Annotated[str, Meta(max_length=64, description="How true is written into path, form or text.")] = "true"
    false_as: Annotated[str, Meta(max_length=64, description="How false is written into path, form or text.")] = "false"


class Tag(PayloadTag, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value in the answer to a request."""

    write: Annotated[Write | None, Meta(description="The request that writes it; a writable tag needs one.")] = None


class Request(PayloadOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request that is made again and again, and the tags that its answer carries."""

    path: Annotated[Path, Meta(description="Path at the host, beginning with /.", examples=["/api/values"])]
    method: Annotated[Literal["GET", "POST"], Meta(description="GET, or POST for devices that are asked by a body.")] = "GET"
    query: Annotated[dict[str, str], Meta(max_length=64, description="What follows ? in the address, by name.")] = msgspec.field(
        default_factory=dict
    )
    headers: Annotated[dict[str, str], Meta(max_length=32, description="Headers of this request alone.")] = msgspec.field(
        default_factory=dict
    )
    body: Annotated[str, Meta(max_length=65536, description="Body of a POST.")] = ""
    body_type: Annotated[HeaderValue, Meta(description="Media type of the body.")] = "application/json"
    scan_s: Annotated[Period | None, Meta(description="Period, in seconds; empty takes the device's.")] = None
    tags: Annotated[tuple[Tag, ...], Meta(max_length=65536, description="The values in its answer.")] = ()


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device behind the host: a group of requests."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    scan_s: Annotated[float, Meta(ge=0.05, le=86400, description="Period of its requests, in seconds.")] = 10.0
    headers: Annotated[dict[str, str], Meta(max_length=32, description="Headers of all its requests.")] = msgspec.field(
        default_factory=dict
    )
    requests: Annotated[tuple[Request, ...], Meta(max_length=1000, description="What is asked.")] = ()


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="http"):
    """HTTP: devices that are asked (REST, JSON, XML, CSV, plain text)."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    url: Annotated[
        str,
        Meta(
            pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[\x21-\x7e]{1,2000}$",
            description="Scheme, host and port, and where all paths begin: https://meter.example.com:8443/api.",
            examples=["https://meter.example.com"],
        ),
    ]
    auth: Annotated[ClientAuth | None, Meta(description="How the gateway shows who it is; a client certificate stands in tls.")] = None
    tls: Annotated[Tls, Meta(description="Certificates, for https. The server is always verified.")] = Tls()
    timeout_s: Annotated[float, Meta(ge=0.05, le=120, description="Longest wait for a whole answer, in seconds.")] = 5.0
    connect_timeout_s: Annotated[float, Meta(ge=0.1, le=60, description="Longest wait for a connection, in seconds.")] = 5.0
    retry_max_s: Annotated[
        float, Meta(ge=1, le=3600, description="Longest pause between tries to reach a device that is silent or busy, in seconds.")
    ] = 60.0
    connections: Annotated[int, Meta(ge=1, le=8, description="Most requests under way at once.")] = 2
    keep_alive: Annotated[bool, Meta(description="Whether a connection serves many requests; false for servers that cannot.")] = True
    redirects: Annotated[int, Meta(ge=0, le=5, description="Redirects that are followed, at the same scheme, host and port only.")] = 0
    allow_local: Annotated[
        bool, Meta(description="Whether url may lead to this machine: loopback, link-local, its own addresses. Private networks may be.")
    ] = False
    devices: Annotated[tuple[Device, ...], Meta(max_length=1000, description="The devices behind this host.")] = ()


# ------------------------------------------------------------------------------------------------------ the webhook


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="hmac"):
    """Each message carries an HMAC-SHA256 of itself."""

    secret: Annotated[Secret, Meta(description="Where the secret lies that sender and gateway share.")]
    style: Annotated[
        Literal["plain", "github", "stripe", "standard"],
        Meta(
            description="How the sender signs. plain: hex over time.body, in headers of its own. github: X-Hub-Signature-256, no time."
            " stripe: t=,v1=. standard: Standard Webhooks (webhook-id, -timestamp, -signature)."
        ),
    ] = "plain"
    signature_header: Annotated[OptionalHeader, Meta(description="Header of the signature; empty takes the style's.")] = ""
    timestamp_header: Annotated[
        OptionalHeader, Meta(description="plain: header of the time, in seconds since 1970; empty takes the style's.")
    ] = ""
    window_s: Annotated[float, Meta(ge=1, le=3600, description="How far a message's time may be from now, in seconds.")] = 300.0


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="bearer"):
    """Each message carries a token (Authorization: Bearer ...): with tls only."""

    token: Annotated[Secret, Meta(description="Where the token lies.")]


class Registered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="scheme", tag="registry"):
    """Each message shows what the gateway's registry gave the device: a token (Authorization: Bearer ...), or its certificate, for which
    tls names the gateway's authority as client_ca_file. With tls only."""


SenderAuth = Signed | Token | Registered


class WebhookTag(PayloadTag, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value in what is posted."""


class WebhookDevice(PayloadOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device that posts what it has to say to a path of its own."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    path: Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._~/-]{1,255}$", description="Path that it posts to.", examples=["/hooks/press-1"])]
    auth: Annotated[SenderAuth | None, Meta(description="How its messages prove themselves; empty takes the connection's.")] = None
    rate_per_s: Annotated[float, Meta(gt=0, le=1000, description="Messages a second that are taken, on average.")] = 10.0
    burst: Annotated[int, Meta(ge=1, le=10000, description="Messages that are taken at once after a pause.")] = 50
    silence_s: Annotated[
        float, Meta(ge=0, le=604800, description="The device counts as lost that has posted nothing for so long, in seconds; 0 never.")
    ] = 0.0
    tags: Annotated[tuple[WebhookTag, ...], Meta(max_length=65536, description="Its values.")] = ()


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="webhook"):
    """Webhook: devices and services that post to the gateway."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    listen_host: Annotated[
        str, Meta(min_length=1, max_length=253, description="Address of this machine to listen on; 0.0.0.0 is every one.")
    ] = "127.0.0.1"
    listen_port: Annotated[int, Meta(ge=1, le=65535, description="TCP port to listen on.")] = 8480
    tls: Annotated[ServerTls | None, Meta(description="The gateway's certificate; without it messages come in the clear.")] = None
    auth: Annotated[
        SenderAuth,
        Meta(
            description="How messages prove themselves, for devices that say nothing else.",
            examples=[{"scheme": "hmac", "secret": {"from": "file", "path": "/etc/holdfast/webhook-secret"}}],
        ),
    ]
    id_header: Annotated[
        OptionalHeader,
        Meta(description="Header that names a delivery, so that a repeat is not taken twice; empty takes what the style has."),
    ] = ""
    rate_per_s: Annotated[float, Meta(gt=0, le=10000, description="Requests a second from one address, on average.")] = 20.0
    burst: Annotated[int, Meta(ge=1, le=10000, description="Requests from one address at once after a pause.")] = 100
    max_connections: Annotated[int, Meta(ge=1, le=1000, description="TCP connections that are open at once.")] = 64
    max_connections_per_peer: Annotated[int, Meta(ge=1, le=1000, description="TCP connections of one address that are open at once.")] = 8
    request_timeout_s: Annotated[
        float, Meta(ge=0.2, le=60, description="Longest wait for a request's headers, and again for its body, in seconds.")
    ] = 10.0
    devices: Annotated[tuple[WebhookDevice, ...], Meta(max_length=1000, description="Who posts.")] = ()
