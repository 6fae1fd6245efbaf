"""Which gateway is meant: its certificate authority, as a file or as a fingerprint.

A gateway issues its own certificate. Its authority is trusted by a file that somebody carried over, or by the fingerprint that
the gateway shows where it stands (SHA-256, hexadecimal): then the authority is taken from the connection itself, and only if
its fingerprint is that one. Before that, nothing is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from holdfast.client.errors import Unreachable, Untrusted


def trusting(url: str, ca_file: str | Path | None = None, fingerprint: str = "", timeout_s: float = 10.0) -> ssl.SSLContext:
    """What TLS accepts: ``ca_file``, or the authority with ``fingerprint``, or what the system trusts. TLS 1.3 alone.

    With a fingerprint it asks the network. Raises Unreachable; Untrusted where no certificate of the chain has it.
    """
    if fingerprint:
        context = ssl.create_default_context(cadata=_authority(url, fingerprint, timeout_s))
    else:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _authority(url: str, fingerprint: str, timeout_s: float) -> bytes:
    wanted = fingerprint.lower().removeprefix("sha256:").replace(":", "").strip()
    for certificate in _chain(url, timeout_s):
        if hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), wanted):
            return certificate
    raise Untrusted(f"{url}: no certificate of its chain has this fingerprint: look at the gateway itself whether it is the right one")


def _chain(url: str, timeout_s: float) -> list[bytes]:
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: the chain is looked at, and the connection closed
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as tls,
        ):
            inner: Any = getattr(tls, "_sslobj", None)  # Any: before 3.13 only the inner object can tell the chain
            found = tls.get_unverified_chain() if hasattr(tls, "get_unverified_chain") else inner.get_unverified_chain()
            return [each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in found or []]
    except OSError as error:
        raise Unreachable(f"{url}: {error}: check the address, and that the gateway runs") from error
