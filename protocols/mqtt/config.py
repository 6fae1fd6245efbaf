"""The Structs that ARE the configuration of an MQTT connection: a broker, the devices that publish there, their topics and tags.

A device's payload options (format, time, limits) stand with the device itself. A *family* is many devices of one description: the
names are a list, so nothing is ever made of what somebody publishes.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocols.options import Host, Name
from protocols.payload import Format, PayloadOptions, PayloadTag
from protocols.secret import Secret
from protocols.tls import Tls

DEVICE: Final = "{device}"

TopicText = Annotated[str, Meta(max_length=1024)]


class Tag(PayloadTag, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value that a device publishes."""

    topic: Annotated[TopicText, Meta(description="Topic of this tag, where it is not the device's; {device} is filled in.")] = ""
    format: Annotated[
        Format | None,
        Meta(description="Format of the payloads of topic, where it is not the device's; the same for all tags of a topic."),
    ] = None
    command_topic: Annotated[
        TopicText, Meta(description="Where commands for this tag go, where it is not the device's; {device} is filled in.")
    ] = ""
    verify: Annotated[
        bool | None, Meta(description="Whether the device tells the tag's value after a command; empty takes the device's.")
    ] = None


class Described(PayloadOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device and a family of devices have in common. Not a type of its own."""

    topic: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=1024,
            description="Where its values are published: a topic, or a filter with + and #; {device} is filled in. sparkplug: group/node"
            " or group/node/device.",
            examples=["plant/{device}/state"],
        ),
    ]
    qos: Annotated[Literal[0, 1], Meta(description="Quality of service of the subscription. At 0 the broker keeps nothing for us.")] = 1
    silence_s: Annotated[
        float, Meta(ge=0, le=31 * 86400, description="Silence after which the device is lost, in seconds; 0 waits for ever.")
    ] = 0.0
    status_topic: Annotated[
        TopicText, Meta(description="Where the device says that it lives, and its last will that it does not; {device} is filled in.")
    ] = ""
    status_at: Annotated[TopicText, Meta(description="Where in the status payload it stands (a JSONPath); empty: the whole payload.")] = ""
    offline: Annotated[str, Meta(min_length=1, max_length=256, description="What the status says when the device is gone.")] = "offline"
    command_topic: Annotated[TopicText, Meta(description="Where commands go; {device} and {tag} are filled in.")] = ""
    verify: Annotated[bool, Meta(description="Whether the device tells a tag's value after a command: it is waited for, and compared.")] = (
        False
    )
    verify_s: Annotated[float, Meta(gt=0, le=600, description="Longest wait for that value, in seconds.")] = 5.0
    tags: Annotated[tuple[Tag, ...], Meta(max_length=20_000, description="The device's values.")] = ()


class Device(Described, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device that publishes."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]


class Family(Described, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Many devices of one description, each with topics of its own."""

    names: Annotated[
        tuple[Name, ...],
        Meta(min_length=1, max_length=10_000, description="Names of the devices, unique in the site; each stands for {device} in topics."),
    ]


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="mqtt", weakref=True):
    """Devices that publish to an MQTT broker."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    host: Annotated[Host, Meta(description="Host name or IP address of the broker.")]
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 1883
    tls: Annotated[Tls | None, Meta(description="TLS; without it the link is in the clear.")] = None
    username: Annotated[str, Meta(max_length=256, description="User name, empty for none.")] = ""
    password: Annotated[Secret | None, Meta(description="Where the password lies.")] = None
    client_id: Annotated[
        str, Meta(max_length=256, description="MQTT client id; empty makes one of this machine and the connection's name.")
    ] = ""
    protocol: Annotated[Literal["3.1.1", "5"], Meta(description="MQTT version.")] = "5"
    keepalive_s: Annotated[int, Meta(ge=5, le=3600, description="Silence after which the broker is pinged, in seconds.")] = 20
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="How long to wait for the broker's answer, in seconds.")] = 10.0
    in_flight: Annotated[int, Meta(ge=1, le=65535, description="Most commands sent and not yet acknowledged.")] = 100
    session_expiry_s: Annotated[
        int,
        Meta(
            ge=0,
            le=31 * 86400,
            description="How long the broker keeps what is published while this gateway is away, in seconds; 0: not at all. MQTT 3.1.1"
            " has no such limit.",
        ),
    ] = 86400
    hold_s: Annotated[
        float,
        Meta(ge=0, le=10, description="A message is acknowledged so long after it was taken: longer than the journal's commit window."),
    ] = 0.5
    hold_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Most messages whose acknowledgement is held back. Above it the oldest is acknowledged at once.",
        ),
    ] = 1000
    devices: Annotated[tuple[Device, ...], Meta(max_length=10_000, description="The devices.")] = ()
    families: Annotated[tuple[Family, ...], Meta(max_length=100, description="Devices of one description.")] = ()
