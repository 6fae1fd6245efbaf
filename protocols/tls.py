"""TLS for drivers and uplinks alike: TLS 1.3 unless told otherwise; a server that we go to is always verified."""

from __future__ import annotations

import ssl
from typing import Annotated, Literal

import msgspec

from protocols.contract import Misfit
from protocols.secret import Secret


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to reach a peer over TLS. There is no switch that turns verification off."""

    ca_file: Annotated[str, msgspec.Meta(description="PEM file of the certificate authorities to trust; empty uses the system's.")] = ""
    cert_file: Annotated[str, msgspec.Meta(description="PEM file of the gateway's own certificate (chain).")] = ""
    key_file: Annotated[str, msgspec.Meta(description="PEM file of the certificate's private key.")] = ""
    key_password: Annotated[Secret | None, msgspec.Meta(description="Where the private key's password lies.")] = None
    server_name: Annotated[str, msgspec.Meta(description="Name to expect in the peer's certificate; empty expects the host.")] = ""
    min_version: Annotated[Literal["1.2", "1.3"], msgspec.Meta(description="Oldest version to accept; 1.2 only for old equipment.")] = "1.3"


class ServerTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How peers that come to us are served over TLS."""

    cert_file: Annotated[str, msgspec.Meta(min_length=1, description="PEM file of the gateway's own certificate (chain).")]
    key_file: Annotated[str, msgspec.Meta(description="PEM file of the certificate's private key; empty: it is in cert_file.")] = ""
    key_password: Annotated[Secret | None, msgspec.Meta(description="Where the private key's password lies.")] = None
    client_ca_file: Annotated[
        str, msgspec.Meta(description="PEM file of the authorities that clients' certificates must come from; empty asks for none.")
    ] = ""
    min_version: Annotated[Literal["1.2", "1.3"], msgspec.Meta(description="Oldest version to accept; 1.2 only for old equipment.")] = "1.3"


def client_context(tls: Tls) -> ssl.SSLContext:
    """An SSLContext for ``tls``. Raises Misfit naming the file that cannot be used; SecretMissing for its password."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Misfit(f"ca_file {tls.ca_file}: {_reason(error)}: give a PEM file of the authority that signed the peer") from error
    context.minimum_version = _version(tls)
    if tls.cert_file:
        _load_own(context, tls)
    return context


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """An SSLContext for ``tls``. Raises Misfit naming the file that cannot be used; SecretMissing for its password."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Misfit(f"client_ca_file {tls.client_ca_file}: {_reason(error)}: give a PEM file of the authority of the clients") from error
    if tls.client_ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = _version(tls)
    _load_own(context, tls)
    return context


def _version(tls: Tls | ServerTls) -> ssl.TLSVersion:
    return ssl.TLSVersion.TLSv1_3 if tls.min_version == "1.3" else ssl.TLSVersion.TLSv1_2


def _load_own(context: ssl.SSLContext, tls: Tls | ServerTls) -> None:
    password = tls.key_password.read() if tls.key_password else ""  # never None: OpenSSL would ask on the terminal
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file or None, password=lambda: password)
    except (OSError, ssl.SSLError) as error:
        raise Misfit(
            f"cert_file {tls.cert_file}, key_file {tls.key_file}: {_reason(error)}: give a PEM certificate and its own key"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
