"""Reaches a broker over TCP and TLS without a thread, and says clearly why it could not.

Everything here is cancellable at every await and leaves no socket behind. The socket is handed over connected, its TLS
handshake done, not blocking. What can go wrong on the way is told as one of the contract's three errors with advice, from
two tables: what certificates fail for (X509_V_ERR, OpenSSL ``x509_vfy.h``) and what TLS itself complains about.

The kernel keeps little of what is written (TCP_NOTSENT_LOWAT): what waits for a slow link waits in our own buffer, where
it is counted and where a ping can overtake it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Final

from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.tls import Tls, client_context

KERNEL_BACKLOG_BYTES: Final = 16 * 1024

CERTIFICATE_TROUBLE: Final[dict[int, tuple[type[DriverError], str]]] = {
    9: (Refused, "the broker's certificate is not valid yet: check the clock of this gateway, then the certificate"),
    10: (Refused, "the broker's certificate has expired: renew it on the broker; if it has not, check the clock of this gateway"),
    18: (Misfit, "the broker's certificate is self-signed and not in ca_file: put it (or its authority) there"),
    19: (Misfit, "the broker's authority is not in ca_file: put the authority that signed the broker's certificate there"),
    20: (Misfit, "the broker's authority is not in ca_file: put the authority that signed the broker's certificate there"),
    23: (Refused, "the broker's certificate has been revoked: it must not be trusted"),
    62: (Misfit, "the broker's certificate is for another host name: use the name in it as host, or set tls.server_name"),
    64: (Misfit, "the broker's certificate is for another IP address: use a host name that is in it, or set tls.server_name"),
}
"""By X509_V_ERR code."""

TLS_TROUBLE: Final[dict[str, tuple[type[DriverError], str]]] = {
    "WRONG_VERSION_NUMBER": (Misfit, "this port does not speak TLS: use the broker's TLS port (usually 8883), or leave out tls"),
    "RECORD_LAYER_FAILURE": (Misfit, "this port does not speak TLS: use the broker's TLS port (usually 8883), or leave out tls"),
    "HTTP_REQUEST": (Misfit, "this port speaks HTTP: use the broker's MQTT port"),
    "PROTOCOL_VERSION": (Misfit, "the broker does not speak this TLS version: let it speak TLS 1.3, or set tls.min_version to 1.2"),
    "UNSUPPORTED_PROTOCOL": (Misfit, "the broker does not speak this TLS version: let it speak TLS 1.3, or set tls.min_version to 1.2"),
    "CERTIFICATE_REQUIRED": (Refused, "the broker wants a client certificate: set tls.cert_file and tls.key_file"),
    "BAD_CERTIFICATE": (
        Refused,
        "the broker does not accept this gateway's certificate: check tls.cert_file against the broker's authority",
    ),
    "UNKNOWN_CA": (Refused, "the broker does not know the authority of tls.cert_file: have the certificate signed by one that it knows"),
    "CERTIFICATE_EXPIRED": (Refused, "this gateway's certificate (tls.cert_file) has expired: renew it"),
    "CERTIFICATE_REVOKED": (Refused, "this gateway's certificate (tls.cert_file) has been revoked: get a new one"),
    "CERTIFICATE_UNKNOWN": (Refused, "the broker does not accept this gateway's certificate: check tls.cert_file"),
    "HANDSHAKE_FAILURE": (Refused, "the broker ended the TLS handshake: check its log; it may want a client certificate (tls.cert_file)"),
    "ACCESS_DENIED": (Refused, "the broker denies access to this gateway's certificate: check the broker's access list"),
}
"""By the part of OpenSSL's reason that tells: reasons carry prefixes such as ``TLSV1_ALERT_`` that differ by version."""


async def dial(host: str, port: int, tls: Tls | None, where: str) -> socket.socket:
    """A connected, non-blocking TCP or TLS socket. ``where`` begins every error text.

    Raises Unreachable, Refused or Misfit; SecretMissing for the password of a key. Sets no deadline: the caller does.
    """
    context = client_context(tls) if tls else None
    try:
        plain = await _connect(host, port)
    except socket.gaierror as error:
        raise Unreachable(f"{where}: the host name does not resolve ({error.strerror}): check it, and this gateway's DNS") from error
    except OSError as error:
        raise Unreachable(f"{where}: {error.strerror or error}: check that the broker runs and that no firewall is between") from error
    if context is None or tls is None:
        return plain
    return await _secure(plain, context, tls.server_name or host, where)


async def _connect(host: str, port: int) -> socket.socket:
    """Try each address of ``host`` in turn. Raises the last OSError."""
    loop = asyncio.get_running_loop()
    trouble = OSError("the host name has no address")
    for family, kind, number, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with contextlib.ExitStack() as undo:
            try:
                plain = undo.enter_context(socket.socket(family, kind, number))
                plain.setblocking(False)
                await loop.sock_connect(plain, address)
                _tune(plain)
            except OSError as error:
                trouble = error
                continue
            undo.pop_all()
            return plain
    raise trouble


def _tune(plain: socket.socket) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BACKLOG_BYTES)


async def _secure(plain: socket.socket, context: ssl.SSLContext, name: str, where: str) -> ssl.SSLSocket:
    """Do the handshake on ``plain``, which belongs to the result (or is closed) afterwards."""
    with contextlib.ExitStack() as undo:
        undo.enter_context(plain)
        try:
            secure = undo.enter_context(context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False))
            await _handshake(secure)
        except OSError as error:
            raise tls_trouble(error, where) from error
        undo.pop_all()
        return secure


async def _handshake(secure: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(loop, secure.fileno(), reading=True)
        except ssl.SSLWantWriteError:
            await _ready(loop, secure.fileno(), reading=False)
        else:
            return


async def _ready(loop: asyncio.AbstractEventLoop, number: int, *, reading: bool) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    watch, forget = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
    watch(number, _tell, ready)
    try:
        await ready
    finally:
        forget(number)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def tls_trouble(error: OSError, where: str) -> DriverError:
    """What an error during TLS means, in words and with advice."""
    if isinstance(error, ssl.SSLCertVerificationError):
        kind, text = CERTIFICATE_TROUBLE.get(error.verify_code, (Refused, f"the broker's certificate: {error.verify_message}: check it"))
        return kind(f"{where}: {text}")
    return tls_alert(str(getattr(error, "reason", None) or error), where) or Unreachable(
        f"{where}: the connection broke during the TLS handshake ({error.strerror or error}): does this port speak TLS?"
    )


def tls_alert(text: str, where: str) -> DriverError | None:
    """The same from OpenSSL's words alone: with TLS 1.3 a refused client certificate shows only after the handshake."""
    for reason, (kind, meaning) in TLS_TROUBLE.items():
        if reason in text.upper().replace(" ", "_"):
            return kind(f"{where}: {meaning}")
    return None
