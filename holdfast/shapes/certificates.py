"""Certificates: the gateway's own authority, what it has issued, and the API's own."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs

RoleName = Literal["viewer", "operator", "technician", "engineer", "administrator"]
Reason = Literal["unspecified", "key_compromise", "superseded", "cessation_of_operation", "privilege_withdrawn"]
_CSR: str = "-----BEGIN CERTIFICATE REQUEST-----\nMIHu...\n-----END CERTIFICATE REQUEST-----\n"

Csr = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=16384,
        description="Certification request (PKCS #10, PEM). Its key is taken; names in it are not.",
        examples=[_CSR],
    ),
]
Days = Annotated[int, Meta(ge=1, le=3650, description="For how long it is good.", examples=[365])]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that the gateway's authority has issued."""

    serial: Annotated[str, Meta(description="Hexadecimal.", examples=["5f2c0a91"])]
    fingerprint: Annotated[str, Meta(description="SHA-256 of its DER, hexadecimal.", examples=["ab" * 32])]
    purpose: Annotated[Literal["principal", "device"], Meta(description="principal: a person or program that uses the API.")]
    name: Annotated[str, Meta(description="Of the principal or the device.", examples=["historian"])]
    role: Annotated[str, Meta(description="What a principal may do; empty for devices.", examples=["viewer"])]
    tenant: Annotated[str, Meta(description="Whose devices are all that it sees; empty: the whole gateway.", examples=[""])]
    not_before_ns: TimeNs
    not_after_ns: TimeNs
    state: Annotated[Literal["good", "not-yet", "ended", "revoked"], Meta(examples=["good"])]
    revoked_ns: Annotated[int, Meta(description="When it was revoked, UTC, nanoseconds; 0: it was not.", examples=[0])]
    reason: Annotated[str, Meta(description="Why it was revoked.", examples=[""])]
    made_by: Annotated[str, Meta(examples=["user:anna"])]
    made_ns: TimeNs


class IssuedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A new certificate, and the authority that signed it."""

    certificate: Certificate
    pem: Annotated[str, Meta(description="The certificate, PEM.", examples=["-----BEGIN CERTIFICATE-----\nMIIB...\n"])]
    authority: Annotated[str, Meta(description="The authority's certificate, PEM.", examples=["-----BEGIN CERTIFICATE-----\nMIIB...\n"])]


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate for a person or a program that uses the API."""

    csr: Csr
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}(?!\n)$", description="Who it is for.", examples=["historian"])]
    role: Annotated[RoleName, Meta(description="At most one's own.", examples=["viewer"])]
    tenant: Annotated[str, Meta(max_length=128, description="Whose devices are all that it sees; empty: everybody's.", examples=[""])] = ""
    days: Days = 365


class CertificateRenewal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new certificate for the same name."""

    csr: Csr
    days: Days = 365


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a certificate is good no longer (RFC 5280, 5.3.1)."""

    reason: Annotated[Reason, Meta(examples=["key_compromise"])] = "unspecified"


class CertificateGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with which somebody enters, whoever has issued it."""

    fingerprint: Annotated[str, Meta(description="SHA-256 of its DER, hexadecimal.", examples=["ab" * 32])]
    name: Annotated[str, Meta(examples=["historian"])]
    role: Annotated[RoleName, Meta(examples=["viewer"])]
    tenant: Annotated[str, Meta(description="Whose devices are all that it sees; empty: the whole gateway.", examples=[""])]
    expires_ns: TimeNs
    state: Annotated[Literal["good", "ended", "revoked"], Meta(examples=["good"])]
    made_by: Annotated[str, Meta(examples=["user:anna"])]
    made_ns: TimeNs
    revoked_ns: Annotated[int, Meta(description="When it was taken back, UTC, nanoseconds; 0: it was not.", examples=[0])]


class NewCertificateGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who enters with a certificate that an authority of ``client_ca_file`` has issued."""

    certificate: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=16384,
            description="The certificate, PEM.",
            examples=["-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n"],
        ),
    ]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}(?!\n)$", description="Who it is for.", examples=["historian"])]
    role: Annotated[RoleName, Meta(description="At most one's own.", examples=["viewer"])]
    tenant: Annotated[str, Meta(max_length=128, description="Whose devices are all that it sees; empty: everybody's.", examples=[""])] = ""


class ServerCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate that the API shows."""

    subject: Annotated[str, Meta(examples=["CN=gw-01"])]
    issuer: Annotated[str, Meta(examples=["CN=Holdfast plant-7 gw-01"])]
    names: Annotated[list[str], Meta(description="Host names and addresses for which it is good.", examples=[["localhost", "192.0.2.7"]])]
    fingerprint: Annotated[str, Meta(description="SHA-256 of its DER, hexadecimal.", examples=["cd" * 32])]
    not_before_ns: TimeNs
    not_after_ns: TimeNs
    own: Annotated[bool, Meta(description="Whether the gateway's own authority issued it and renews it.", examples=[True])]
