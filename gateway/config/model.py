"""The Structs that ARE the configuration: types, defaults, limits, units and descriptions stand here and nowhere else.

Schema, sample, reference page and validation derive from them. ``connections`` are the drivers' own Structs, found by
``type`` through the entry-point group ``holdfast.drivers``; everything else is below.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from gateway.config.api import Api, Tenant
from gateway.config.audit import AuditOptions
from gateway.config.commands import Commands
from gateway.config.faces import AnyFace
from gateway.config.history import History
from protocols.secret import Secret
from protocols.tls import Tls

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,126}(?!\n)$"
COMMANDS: Final = "_commands"
"""The device under which outcomes of commands are recorded; no other may have its name."""
CLOCK: Final = "_clock"
"""The device under which changes of the gateway's own clock are recorded; no other may have its name."""
MAX_AGE_S = 100 * 365 * 86400.0
Name = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description="A name without / + # so that it can be part of a topic.",
        extra={"hint": "letters, digits, _ . - and spaces, beginning with a letter, digit or _"},
    ),
]
Host = Annotated[str, Meta(min_length=1, max_length=253, description="Host name or IP address.")]
Port = Annotated[int, Meta(ge=1, le=65535, description="TCP port; brokers mostly use 1883, and 8883 with TLS.")]


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who this gateway is."""

    group: Annotated[Name, Meta(description="Group of gateways, such as the plant; the Sparkplug group id.")]
    name: Annotated[Name, Meta(description="Name of this gateway, unique in its group; the Sparkplug edge node id.")]


class JournalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The durable record of everything that happened."""

    path: Annotated[str, Meta(min_length=1, description="Folder of the journal; relative to the site document.")] = "./data/journal"
    max_bytes: Annotated[int, Meta(ge=16 * 1024**2, le=2**50, description="Most bytes that the journal may take on disk.")] = 2 * 1024**3
    max_age_s: Annotated[float, Meta(gt=0, le=MAX_AGE_S, description="Records older than this are dropped, in seconds.")] = 30 * 86400.0
    commit_window_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=60_000,
            description="Records are made durable together, once in so many milliseconds at most, and none later than that after it came.",
        ),
    ] = 100
    when_full: Annotated[
        Literal["drop-oldest", "drop-newest"], Meta(description="What is dropped, and counted, when the journal is full.")
    ] = "drop-oldest"
    min_free_bytes: Annotated[
        int, Meta(ge=0, le=2**50, description="Free space that the journal leaves on its file system; it shrinks before it takes more.")
    ] = 64 * 1024**2


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The gateway's own metrics and logs."""

    metrics_host: Annotated[Host, Meta(description="Address on which Prometheus metrics are served.")] = "127.0.0.1"
    metrics_port: Annotated[int, Meta(ge=0, le=65535, description="Port of the Prometheus metrics; 0 serves none.")] = 0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is logged.")] = "info"
    log_format: Annotated[Literal["json", "console"], Meta(description="json for machines, console for a person.")] = "json"


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A further broker to try when the first does not serve."""

    host: Host
    port: Port = 1883


class MqttUplink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every uplink over MQTT needs. Not a type of its own."""

    name: Annotated[Name, Meta(description="Name of the uplink; its cursor in the journal is kept under it.")]
    host: Host
    port: Port = 1883
    tls: Annotated[Tls | None, Meta(description="TLS; without it the link is in the clear.")] = None
    username: Annotated[str, Meta(max_length=256, description="User name, empty for none.")] = ""
    password: Annotated[Secret | None, Meta(description="Where the password lies.")] = None
    client_id: Annotated[str, Meta(max_length=256, description="MQTT client id; empty makes holdfast-<group>-<name>-<uplink>.")] = ""
    protocol: Annotated[Literal["3.1.1", "5"], Meta(description="MQTT version.")] = "5"
    keepalive_s: Annotated[int, Meta(ge=5, le=3600, description="Silence after which the broker is pinged, in seconds.")] = 20
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="How long to wait for the broker's answer, in seconds.")] = 10.0
    in_flight: Annotated[int, Meta(ge=1, le=65535, description="Most messages sent and not yet acknowledged.")] = 100
    backfill_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of the link that old records may take while new ones are sent; 1 is no limit.")
    ] = 0.5
    start: Annotated[Literal["oldest", "newest"], Meta(description="Where a new uplink begins to read the journal.")] = "oldest"
    commands: Annotated[bool, Meta(description="Whether commands are taken from this uplink, within the section commands.")] = False
    commands_topic: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=512,
            pattern=r"^[^+#\x00]*$",
            extra={"hint": "without + #"},
            description="Topic of commands as JSON (type mqtt); outcomes go to /outcomes below it. {group} and {gateway} are filled in.",
        ),
    ] = "holdfast/{group}/{gateway}/commands"


class SparkplugUplink(MqttUplink, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="sparkplug"):
    """Sparkplug B 3.0 to an MQTT broker."""

    primary_host: Annotated[
        str,
        Meta(
            max_length=256,
            pattern=r"^[^/+#]*$",
            extra={"hint": "without / + #"},
            description="Host application id whose STATE decides; empty waits for none.",
        ),
    ] = ""
    fallback: Annotated[tuple[Broker, ...], Meta(max_length=8, description="Further brokers, tried in order.")] = ()
    acknowledge: Annotated[
        Literal["broker", "consumer"],
        Meta(description="Who confirms a ledger mark: the broker (PUBACK) or a consumer that checked it."),
    ] = "broker"
    acknowledge_timeout_s: Annotated[
        float, Meta(gt=0, le=3600, description="Silence of the consumer after which its records are sent again, in seconds.")
    ] = 30.0
    ledger_topic: Annotated[
        str, Meta(min_length=1, max_length=512, description="Topic of the ledger marks; {group} and {gateway} are filled in.")
    ] = "holdfast/{group}/{gateway}/ledger"


class PlainMqttUplink(MqttUplink, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="mqtt"):
    """JSON over MQTT, QoS 1."""

    topic: Annotated[
        str, Meta(min_length=1, max_length=512, description="Topic; {group}, {gateway}, {connection}, {device} are filled in.")
    ] = "{group}/{gateway}/{device}"
    payload: Annotated[
        Literal["columns", "tags", "thingsboard"],
        Meta(description="Shape of the JSON: columns (compact), tags (an object a tag) or thingsboard (its gateway API)."),
    ] = "columns"


Uplink = SparkplugUplink | PlainMqttUplink


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The document that configures a gateway: ``site.yaml``."""

    holdfast: Annotated[Literal[1], Meta(description="Version of this document's shape.")]
    gateway: Gateway
    journal: JournalOptions = JournalOptions()
    telemetry: Telemetry = Telemetry()
    state_path: Annotated[
        str,
        Meta(
            max_length=4096,
            description="Folder of what the gateway knows besides readings: users, revisions, certificates; empty: state in the journal's.",
        ),
    ] = ""
    api: Annotated[Api | None, Meta(description="The local API; without it there is none.")] = None
    connections: Annotated[
        tuple[Any, ...], Meta(max_length=10_000, description="Ways to reach field equipment; each one of the drivers' Structs.")
    ] = ()  # Any: the drivers' Structs are known only at run time
    uplinks: Annotated[tuple[Uplink, ...], Meta(max_length=32, description="Who receives the journal's records.")] = ()
    faces: Annotated[tuple[AnyFace, ...], Meta(max_length=32, description="How PLCs and SCADA see the gateway's tags.")] = ()
    tenants: Annotated[tuple[Tenant, ...], Meta(max_length=256, description="Who shares the gateway and sees a part of it.")] = ()
    audit: Annotated[AuditOptions, Meta(description="How much of the audit log is kept.")] = AuditOptions()
    commands: Annotated[Commands, Meta(description="Who may write which tag, and within which limits.")] = Commands()
    history: History = History()
    outage_budget_s: Annotated[
        float,
        Meta(
            ge=0, le=MAX_AGE_S, description="Longest outage that the journal must hold, in seconds; checked against the configured rates."
        ),
    ] = 72 * 3600.0
