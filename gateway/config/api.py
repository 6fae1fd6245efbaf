"""The Structs of the local API: where it listens, how it is protected, and which tenants share the gateway."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.options import Host, Name
from protocols.secret import Secret

Path = Annotated[str, Meta(max_length=4096)]


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For how long people and programs are let in."""

    session_idle_s: Annotated[
        float, Meta(gt=0, le=30 * 86400.0, description="A session that nobody uses for this long ends, in seconds.")
    ] = 1800.0
    session_longest_s: Annotated[
        float, Meta(gt=0, le=30 * 86400.0, description="A session ends after this long, used or not, in seconds.")
    ] = 43200.0
    token_longest_days: Annotated[int, Meta(ge=1, le=3650, description="Longest life of an API token, in days.")] = 365


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much is taken at once: beyond it callers are told to wait, and nobody else notices."""

    connections: Annotated[int, Meta(ge=1, le=20_000, description="Most connections at once, from wherever.")] = 512
    connections_per_address: Annotated[int, Meta(ge=1, le=20_000, description="Most connections at once from one address.")] = 320
    requests: Annotated[int, Meta(ge=1, le=10_000, description="Most requests that are answered at once; live streams do not count.")] = 64
    requests_per_address: Annotated[int, Meta(ge=1, le=10_000, description="Most requests at once from one address.")] = 48
    requests_per_s: Annotated[
        float, Meta(gt=0, le=1e6, description="Most requests a second of one caller, and of one address; twice as many in a burst.")
    ] = 500.0
    patience_s: Annotated[
        float, Meta(gt=0, le=3600, description="Within so long a request must be sent, and each part of its answer taken, in seconds.")
    ] = 20.0


HttpsUrl = Annotated[
    str,
    Meta(pattern=r"^https://[^\s/?#@]+(/[^\s?#]*)?(?!\n)$", max_length=2048, extra={"hint": "https://host/path"}),
]


class OidcRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What somebody may do who has this value, such as a group, at the identity provider."""

    value: Annotated[str, Meta(min_length=1, max_length=256, description="Value of the claim, such as the name or id of a group.")]
    role: Annotated[
        Literal["viewer", "operator", "technician", "engineer", "administrator"], Meta(description="Role that whoever has it gets.")
    ]
    tenant: Annotated[str, Meta(max_length=128, description="Tenant to which they are bound; empty: the whole gateway.")] = ""


class Oidc(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signing in at the plant's own identity provider (OpenID Connect, authorization code with PKCE)."""

    issuer: Annotated[HttpsUrl, Meta(description="The provider's issuer, exactly as it says it itself.")]
    client_id: Annotated[str, Meta(min_length=1, max_length=256, description="By which the provider knows this gateway.")]
    client_secret: Annotated[Secret | None, Meta(description="Where the client's secret lies; without: a public client.")] = None
    redirect_uri: Annotated[
        HttpsUrl, Meta(description="This gateway as browsers see it, and /api/v1/session/oidc/callback; the provider must know it.")
    ]
    roles: Annotated[
        tuple[OidcRole, ...], Meta(min_length=1, max_length=256, description="Who may do what; of several, the highest role counts.")
    ]
    role_claim: Annotated[str, Meta(min_length=1, max_length=128, description="Claim in which those values stand.")] = "groups"
    name_claim: Annotated[str, Meta(min_length=1, max_length=128, description="Claim of people's names.")] = "preferred_username"
    scopes: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,128}$")], ...],
        Meta(min_length=1, max_length=32, description="Scopes that are asked for."),
    ] = ("openid", "profile")
    ca_file: Annotated[Path, Meta(description="PEM file of the authorities that vouch for the provider; empty: the system's.")] = ""
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="How long the provider may take to answer, in seconds.")] = 10.0


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The local API (HTTPS, TLS 1.3). Without this section there is none."""

    host: Annotated[Host, Meta(description="Address to listen on; 127.0.0.1 is seen by this machine alone.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes a free one.")] = 8443
    cert_file: Annotated[Path, Meta(description="PEM file of its certificate (chain); empty: the gateway's own authority issues one.")] = ""
    key_file: Annotated[Path, Meta(description="PEM file of the certificate's private key; empty: it is in cert_file.")] = ""
    key_password: Annotated[Secret | None, Meta(description="Where the private key's password lies.")] = None
    names: Annotated[
        tuple[Host, ...],
        Meta(max_length=64, description="Host names and addresses, besides the machine's own, for which the own certificate is good."),
    ] = ()
    client_ca_file: Annotated[
        Path, Meta(description="PEM file of further authorities whose clients' certificates may be granted; the own one's always may.")
    ] = ""
    client_crl_file: Annotated[
        Path, Meta(description="PEM file of what those authorities have revoked; it is read again when it changes.")
    ] = ""
    access: Annotated[Access, Meta(description="For how long people and programs are let in.")] = Access()
    limits: Annotated[Limits, Meta(description="How much is taken at once.")] = Limits()
    oidc: Annotated[Oidc | None, Meta(description="Signing in at an identity provider; without it there is none.")] = None


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Somebody who shares the gateway and sees a part of its devices, such as the builder of a machine."""

    name: Annotated[Name, Meta(description="Name of the tenant; users and tokens are bound to it.")]
    devices: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...],
        Meta(min_length=1, max_length=1000, description="Names of its devices; * stands for any text, ? for any letter."),
    ]
