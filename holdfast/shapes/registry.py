"""The device registry: the life of each device, its credentials, and how it is."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.certificates import Csr, Days
from holdfast.shapes.common import TimeNs

LifeStateName = Literal["registered", "provisioned", "active", "suspended", "decommissioned"]
DeviceName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,126}(?!\n)$",
        description="Name of the device, as the site has it.",
        examples=["press-7"],
    ),
]
Why = Annotated[str, Meta(min_length=1, max_length=500, description="Why, for the audit log.", examples=["replaced by press-8"])]


class DeviceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a device is, from a sample every few seconds."""

    last_seen_ns: Annotated[int, Meta(description="Time of its newest good value, UTC, nanoseconds; 0: none since the gateway's start.")]
    lost: Annotated[bool, Meta(description="Whether it does not answer.", examples=[False])]
    lost_since_ns: Annotated[int, Meta(description="Since when it does not answer, UTC, nanoseconds; 0: it does.", examples=[0])]
    good_now: Annotated[float, Meta(description="Share of its tags whose last value is good, 0 to 1.", examples=[1.0])]
    good_day: Annotated[float | None, Meta(description="The same over 24 hours; null before the first sample.", examples=[0.9987])]
    target: Annotated[float, Meta(description="Share that it owes.", examples=[0.99])]
    budget_left: Annotated[
        float | None, Meta(description="Share of the error budget that is left: 1 all, 0 none, below 0 overdrawn.", examples=[0.87])
    ]
    covered_s: Annotated[float, Meta(description="How much of the 24 hours is known; it begins anew with the gateway.", examples=[86400.0])]


class RegisteredDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device and the part of its life that it is in."""

    name: DeviceName
    kind: Annotated[Literal["field", "pushing"], Meta(description="field: the gateway asks it; pushing: it comes to the gateway.")]
    state: LifeStateName
    since_ns: Annotated[int, Meta(description="UTC, nanoseconds; 0: since it was configured.", examples=[1_795_000_000_000_000_000])]
    reason: Annotated[str, Meta(examples=["it has given a good value"])]
    by: Annotated[str, Meta(description="Who brought it into this state.", examples=["gateway"])]
    configured: Annotated[bool, Meta(description="Whether the site that runs has it.", examples=[True])]
    wiped_ns: Annotated[int, Meta(description="What was recorded before is given to nobody; 0: all of it is.", examples=[0])]
    health: Annotated[DeviceHealth | None, Meta(description="null while it is not configured, or was not looked at yet.")]


class LifeStep(msgspec.Struct, frozen=True, kw_only=True):
    """One change in the life of a device."""

    before: Annotated[str, Meta(description="Empty: it was registered.", examples=["registered"])]
    after: LifeStateName
    time_ns: TimeNs
    by: Annotated[str, Meta(examples=["user:anna"])]
    reason: str


class DeviceLife(msgspec.Struct, frozen=True, kw_only=True):
    """A device and the last 1000 changes of its life, oldest first."""

    device: RegisteredDevice
    steps: list[LifeStep]


class NewDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device that will push, or one that was decommissioned and begins anew."""

    name: DeviceName
    reason: Why


class StateChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The next state of a device."""

    state: Annotated[Literal["registered", "provisioned", "active", "suspended"], Meta(examples=["suspended"])]
    reason: Why


class Decommissioning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of a device's life."""

    history: Annotated[
        Literal["keep", "wipe"],
        Meta(
            description="wipe: what was recorded until now is given to nobody through the API any more. It leaves the disk with its"
            " segments of the journal, when those are dropped for age or size; what uplinks have delivered is delivered.",
            examples=["keep"],
        ),
    ]
    reason: Why


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What a device shows to prove who it is."""

    id: Annotated[str, Meta(description="A certificate's serial, or a token's jti.", examples=["5f2c0a91"])]
    type: Literal["certificate", "token"]
    made_ns: TimeNs
    made_by: Annotated[str, Meta(examples=["user:anna"])]
    expires_ns: TimeNs
    state: Annotated[Literal["good", "ended", "revoked"], Meta(examples=["good"])]


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """All credentials of a device."""

    items: list[Credential]


class EnrolmentWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the chance to enrol lasts."""

    lifetime_s: Annotated[float, Meta(ge=60, le=30 * 86400, examples=[86400.0])] = 86400.0


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """A secret with which the device gets a certificate, once. It is told this once; a newer one takes its place."""

    enrolment_token: Annotated[str, Meta(examples=["hfe_..."])]
    expires_ns: TimeNs


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device sends to get its certificate."""

    enrolment_token: Annotated[str, Meta(min_length=1, max_length=200, examples=["hfe_..."])]
    csr: Csr
    days: Days = 365


class DeviceRenewal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device sends, over a connection with its old certificate, to get a new one."""

    csr: Csr
    days: Days = 365


class DeviceCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A device's new certificate."""

    serial: Annotated[str, Meta(examples=["5f2c0a91"])]
    not_after_ns: TimeNs
    pem: Annotated[str, Meta(description="The certificate, PEM.", examples=["-----BEGIN CERTIFICATE-----\nMIIB...\n"])]
    authority: Annotated[str, Meta(description="The authority's certificate, PEM.", examples=["-----BEGIN CERTIFICATE-----\nMIIB...\n"])]


class DeviceTokenWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the token is good."""

    days: Days = 365


class DeviceToken(msgspec.Struct, frozen=True, kw_only=True):
    """A JWT (ES256) that the device shows as Authorization: Bearer. It is told this once."""

    id: Annotated[str, Meta(description="Its jti, by which it is revoked.", examples=["k3Jd0aZ9"])]
    token: Annotated[str, Meta(examples=["eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9..."])]
    expires_ns: TimeNs
