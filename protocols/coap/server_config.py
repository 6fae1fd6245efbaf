"""The Structs that ARE the configuration of the CoAP server, to which devices push. Nothing here touches the network."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocols.coap.config import Oscore, Path, Scheme
from protocols.options import Name
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.secret import Secret
from protocols.tls import ServerTls


class PushedResource(PayloadOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One path that a device pushes to, and what lies in what it pushes."""

    path: Path = "/"
    tags: Annotated[tuple[PayloadTag, ...], Meta(max_length=4096, description="Its values.")] = ()


class PushingDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device that pushes. Its messages prove themselves by OSCORE, or by a token in their query, or not at all."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    path: Annotated[Path, Meta(description="With what the paths of its resources begin.", examples=["/tank-1"])]
    oscore: Annotated[Oscore | None, Meta(description="Keys: only what is sealed with them is taken (RFC 8613).")] = None
    token: Annotated[Secret | None, Meta(description="Where a token lies that it sends as Uri-Query token=...; plain UDP shows it.")] = None
    silence_s: Annotated[
        float, Meta(ge=0, le=604800, description="The device counts as lost that has pushed nothing for so long, in seconds; 0: never.")
    ] = 0.0
    resources: Annotated[tuple[PushedResource, ...], Meta(max_length=1000, description="What it pushes.")] = ()


class CoapServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="coap-server"):
    """CoAP devices that push to the gateway."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    listen_host: Annotated[
        str, Meta(min_length=1, max_length=253, description="Address of this machine to listen on; 0.0.0.0 is every one.")
    ] = "127.0.0.1"
    schemes: Annotated[tuple[Scheme, ...], Meta(min_length=1, max_length=3, description="What is listened to.")] = ("coap",)
    listen_port: Annotated[int, Meta(ge=1, le=65535, description="Port of coap and coap+tcp.")] = 5683
    tls_port: Annotated[int, Meta(ge=1, le=65535, description="Port of coaps+tcp.")] = 5684
    tls: Annotated[ServerTls | None, Meta(description="The gateway's certificate, for coaps+tcp.")] = None
    rate_per_s: Annotated[
        float, Meta(gt=0, le=10000, description="Messages a second from one address, on average; more get no answer.")
    ] = 20.0
    burst: Annotated[int, Meta(ge=1, le=10000, description="Messages from one address at once after a pause.")] = 50
    max_connections: Annotated[int, Meta(ge=1, le=1000, description="TCP connections that are open at once.")] = 64
    state_folder: Annotated[
        str,
        Meta(max_length=4096, description="Folder where OSCORE's sequence numbers survive a restart; needed if a device has oscore."),
    ] = ""
    devices: Annotated[tuple[PushingDevice, ...], Meta(max_length=2000, description="Who pushes.")] = ()
