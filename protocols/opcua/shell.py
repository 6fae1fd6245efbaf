"""The one place that touches asyncua: connect, secure, prove who we are, ask, close. Everything private or dangerous of it is here.

asyncua gives the secure channel, its cryptography and the services that set up a session. What it leaves open is closed here:

* A chunk longer than we said we take, or a message of more chunks, ends the connection before it is gathered (asyncua gathers
  whatever length a header names).
* The server's certificate is judged before a secured channel is opened to it, and ``certificate_validator`` judges it again
  (asyncua without one accepts every certificate).
* A password goes out encrypted by a policy of ours, or not at all (asyncua would send it readable).
* Requests and answers behind the session's set-up are bytes of ours: no object for each value, no code made of what servers say.
* Its watchdog, supervisor, publish loop and automatic reconnect are not used; ``gateway/links.py`` reconnects, and
  :class:`Kept` is what the next connection needs to take the same session up again. See README.md.

Foreign errors are translated here, once, into the contract's three.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClient, UASocketProtocol, UASocketState
from asyncua.crypto import security_policies
from asyncua.ua.ua_binary import nodeid_to_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from protocols.clock import Clock
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.opcua import certificates
from protocols.opcua.answers import Fault
from protocols.opcua.binary import TICKS_1970, Malformed
from protocols.opcua.certificates import Identity, Untrusted, Unusable
from protocols.opcua.config import X509, OpcUa, Security, UserName
from protocols.opcua.nodes import NodeId
from protocols.opcua.requests import Request, close_session, header, node_id
from protocols.secret import Secret

T = TypeVar("T")

MAX_CHUNK: Final = 65535
MAX_MESSAGE: Final = 4 * 1024**2
MAX_SETUP: Final = 160 * 1024
"""Longest message while a session is set up: asyncua reads it in one go, in the event loop."""
CLOSE_S: Final = 1.0
"""How long a server may take to let us go."""
FINISH_S: Final = 3.0
"""How long a cancelled connecting may take to get to where it can be closed."""
LEAST_LIFETIME_S: Final = 10.0
DEFAULT_PORT: Final = 4840

POLICIES: Final[dict[str, Any]] = {  # Any: asyncua's classes share no base that says what they take
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
ALLOWED: Final = frozenset(policy.URI for policy in POLICIES.values())
"""Policies by which a password may be encrypted, too."""
NONE_URI: Final = security_policies.SecurityPolicyNone.URI
MODES: Final = {"sign": ua.MessageSecurityMode.Sign, "sign-and-encrypt": ua.MessageSecurityMode.SignAndEncrypt}

GONE: Final = frozenset({0x80250000, 0x80260000, 0x80130000, 0x80200000, 0x80210000, 0x80220000, 0x80500000})
"""Statuses of ActivateSession that mean: this session cannot be taken up again (not known, closed, not by us)."""
REFUSALS: Final[dict[int, str]] = {
    0x801F0000: "this user may not do that: check user, and its rights at the server",
    0x80200000: "the server does not take this kind of user: check user",
    0x80210000: "user name, password or certificate are wrong: check user",
    0x80130000: "the server refuses our certificate or user: accept own/certificate.der at the server, check user",
    0x801A0000: "the server does not trust our certificate: accept it at the server (own/certificate.der in security.folder)",
    0x80120000: "our certificate is not valid for the server: see own/certificate.der in security.folder",
    0x80140000: "our certificate is out of date for the server: check both clocks; remove own/ in security.folder for a new one",
    0x80170000: "our certificate's application URI is not what the server was told: check application_uri",
    0x80540000: "the server does not offer this security mode: check security.mode",
    0x80550000: "the server refuses this security policy: check security.policy",
}
MISFITS: Final[dict[int, str]] = {
    0x807D0000: "the server has no such endpoint: check the path in endpoint",
    0x80830000: "the server has no such endpoint: check host, port and path in endpoint",
    0x80BE0000: "the server speaks another version of the protocol",
    0x800B0000: "the server lacks a service that is needed: look for another endpoint of it",
}

logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # what it would say, errors of ours say once and better


class _Wire(UASocketProtocol):
    """asyncua's connection with bounds: whole chunks of lengths that were agreed on, and messages that end."""

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: asyncua's own
        super().__init__(*args, **options)
        self._pending = bytearray()
        self.trouble: Exception | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.most = MAX_SETUP
        self.reads = 0

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 8 and self.trouble is None:
            kind, size = bytes(self._pending[:4]), int.from_bytes(self._pending[4:8], "little")
            if kind[:3] not in (b"MSG", b"OPN", b"ACK", b"ERR", b"CLO") or kind[3:] not in (b"F", b"C", b"A"):
                self._give_up(Misfit(f"what came is no OPC UA: {bytes(self._pending[:24])!r}: check host and port in endpoint"))
                return
            if not 8 < size <= MAX_CHUNK:
                self._give_up(Misfit(f"a chunk of {size} bytes came, where {MAX_CHUNK} were agreed on: the connection was closed"))
                return
            if len(self._pending) < size:
                return
            chunk = bytes(self._pending[:size])
            del self._pending[:size]
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        if chunk[:3] == b"ERR":
            self._give_up(_wire_error(chunk))
            return
        self._process_received_data(chunk)
        if self.transport is None or self.transport.is_closing():
            self._give_up(Misfit("a message cannot be read or is not secured as agreed on: the connection was closed"))
            return
        connection = self._connection
        if connection._incoming_size > self.most or len(connection._incoming_parts) > self.most // 1024 + 16:
            self._give_up(Misfit(f"a message of more than {self.most} bytes came: ask for less (max_nodes)"))
        elif chunk[:3] == b"ACK":
            self._bound()

    def _bound(self) -> None:
        """What the server said of its buffers holds as far as it makes sense; ours hold always."""
        limits = self._connection._limits
        if limits.max_send_buffer < 8192:
            self._give_up(Misfit(f"the server takes chunks of {limits.max_send_buffer} bytes: 8192 is the least (OPC 10000-6, 7.1.2.3)"))
        limits.max_send_buffer = min(limits.max_send_buffer, MAX_CHUNK)
        limits.max_recv_buffer = MAX_CHUNK
        limits.max_message_size = MAX_MESSAGE
        limits.max_chunk_count = MAX_MESSAGE // 1024

    def _give_up(self, trouble: Exception) -> None:
        self.trouble = self.trouble or trouble
        self._pending.clear()
        self._fail_all_pending(self.trouble)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pending.clear()
        super().connection_lost(self.trouble or exc)
        if not self.lost.done():
            self.lost.set_result(None)


class _Transport(UaClient):
    def _make_protocol(self) -> UASocketProtocol:
        self.protocol = _Wire(self._timeout, security_policy=self.security_policy)
        self.protocol.on_connection_lost = self._on_transport_lost
        return self.protocol


@dataclass
class Kept:
    """What is needed to take up a session of an earlier connection: nothing of it is written anywhere."""

    token: ua.NodeId
    nonce: bytes | None
    policies: list[ua.UserTokenPolicy]
    server_certificate: bytes | None
    since: float
    """When the connection broke, monotonic."""
    subscriptions: list[Any] = field(default_factory=list)
    """The session's own account of them. Any: this module only carries it."""


class Peer:
    """An open session. ``ask`` waits for one answer, ``post`` gives it as a future."""

    def __init__(self, client: Client, wire: _Wire, where: str, clock: Clock, timeout_s: float, *, resumed: bool) -> None:
        self._client, self._wire, self._clock = client, wire, clock
        self.where = where
        self.resumed = resumed
        self.timeout_s = timeout_s
        self.requests = 0
        self._token = nodeid_to_binary(client.uaclient.session.authentication_token)
        wire.most = MAX_MESSAGE
        self._renewal = asyncio.create_task(self._renew())

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done once the connection is gone."""
        return self._wire.lost

    @property
    def trouble(self) -> DriverError:
        """Why it is gone."""
        return _translated(self._wire.trouble or ConnectionError("the connection was closed"), self.where)

    @property
    def is_lost(self) -> bool:
        return self._wire.trouble is not None or self._wire.lost.done() or self._wire.transport is None

    def post(self, request: Request, timeout_s: float = 0.0) -> asyncio.Future[Any]:  # Any: asyncua's buffer; see answered
        """Send ``request``. ``timeout_s`` is a hint for the server, 0 for none. Raises the contract's errors."""
        wire = self._wire
        if self.is_lost or wire.transport is None:
            raise self.trouble
        self.requests += 1
        wire._request_handle += 1
        stamp = TICKS_1970 + self._clock.time_ns() // 100
        content = node_id(NodeId(0, request.encoding)) + header(self._token, stamp, wire._request_handle, timeout_s) + request.body
        wire.revolve_security_token()
        wire._request_id += 1
        message = wire._connection.message_to_binary(content, request_id=wire._request_id)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look_at)
        wire._callbackmap[wire._request_id] = future
        wire.transport.write(message)
        return future

    def answered(self, future: asyncio.Future[Any]) -> bytes:  # Any: as above
        """The bytes of an answer that has come. Raises the contract's errors."""
        try:
            buffer = future.result()
        except (UaError, OSError) as error:
            raise _translated(self._wire.trouble or error, self.where) from error
        except DriverError as error:
            raise _translated(error, self.where) from error
        found: bytes = buffer.read(len(buffer))
        return found

    async def ask(self, request: Request, read: Callable[[bytes], T], timeout_s: float | None = None) -> T:
        """``request`` answered and read. Raises Fault; the contract's errors; Unreachable where no answer comes in time."""
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        future = self.post(request, wait_s)
        try:
            done, _ = await asyncio.wait({future}, timeout=wait_s)
        finally:
            future.cancel()  # of no effect once it is done; a late answer to one that nobody waits for is read over
        if not done:
            raise Unreachable(f"{self.where}: no answer within {wait_s:g} s: check the server and the network, or raise timeout_s")
        content = self.answered(future)
        try:
            return read(content) if len(content) < IN_A_THREAD else await asyncio.to_thread(read, content)
        except Malformed as error:
            raise self.broken(error) from error

    def broken(self, error: Malformed) -> Misfit:
        return Misfit(f"{self.where}: an answer cannot be read: {error}: the server breaks the encoding; tell its maker")

    def keep(self, subscriptions: list[Any]) -> Kept:  # Any: see Kept
        client = self._client
        return Kept(
            client.uaclient.session.authentication_token,
            client._server_nonce,
            client._policy_ids,
            client.security_policy.peer_certificate,
            self._clock.monotonic(),
            subscriptions,
        )

    async def close(self, *, politely: bool) -> None:
        """End it; ``politely`` ends the session at the server, with everything in it."""
        self._renewal.cancel()
        try:
            if politely and not self.is_lost:
                future = self.post(close_session(), CLOSE_S)
                await asyncio.wait({future, self.lost}, timeout=CLOSE_S, return_when=asyncio.FIRST_COMPLETED)
                future.cancel()
        finally:
            await _hang_up(self._client, self._wire)
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _renew(self) -> None:
        """A new security token after three quarters of the old one's life (OPC 10000-4, 5.6.2.1)."""
        while True:
            lifetime_s = max(self._client.secure_channel_timeout / 1000, LEAST_LIFETIME_S)
            await self._clock.sleep_until(self._clock.monotonic() + 0.75 * lifetime_s)
            try:
                await self._client.open_secure_channel(renew=True)
            except (UaError, OSError, TimeoutError, ValueError, InvalidSignature, DriverError) as error:
                self._wire._give_up(_translated(error, self.where))
                return
            self._client.uaclient.revolve_security_token()


IN_A_THREAD: Final = 64 * 1024
"""An answer of more bytes is read in a thread: no server delays another connection."""


@dataclass(frozen=True)
class _Ours:
    """What we bring: identity, and secrets as they are at this moment."""

    identity: Identity | None
    password: str | None
    user: Identity | None


async def connect(options: OpcUa, clock: Clock, kept: Kept | None = None) -> Peer:
    """An activated session: that of ``kept`` if the server still has it, else a new one.

    Raises Unreachable, Refused, Misfit; SecretMissing. A cancelled connecting leaves no session behind.
    """
    task = asyncio.ensure_future(_connect(options, clock, kept))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=FINISH_S)  # a session that was just made must be closed, not left to time out
        if task.done() and not task.cancelled() and task.exception() is None:
            await task.result().close(politely=True)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _connect(options: OpcUa, clock: Clock, kept: Kept | None) -> Peer:
    where = place(options.endpoint)
    ours = await asyncio.to_thread(_ours, options, clock.time_ns(), where)
    policy = await _policy(options, clock, ours, where)
    client = _client(options, policy)
    wire: _Wire | None = None
    try:
        with _translating(where):
            wire = await _open(client, options)
            resumed = kept is not None and await _resume(client, options, ours, kept)
            if not resumed:
                await _begin(client, options, ours, clock, where)
        _unhook(client)
    except BaseException:
        if wire is not None:
            await _hang_up(client, wire)
        raise
    return Peer(client, wire, where, clock, options.timeout_s, resumed=resumed)


def place(endpoint: str) -> str:
    """Host and port, as a person finds them."""
    parts = urlsplit(endpoint)
    return f"{parts.hostname}:{parts.port or DEFAULT_PORT}"


def _ours(options: OpcUa, now_ns: int, where: str) -> _Ours:
    """Reads and makes files."""
    security, user = options.security, options.user
    try:
        identity = None
        if security.policy != "none":
            if security.cert_file:
                identity = certificates.load_identity(security.cert_file, security.key_file, _secret(security.key_password))
            else:
                identity = certificates.own_identity(Path(security.folder), options.application_uri, now_ns)
        person = certificates.load_identity(user.cert_file, user.key_file, _secret(user.key_password)) if isinstance(user, X509) else None
    except Unusable as error:
        raise Misfit(f"{where}: {error}") from error
    return _Ours(identity, user.password.read() if isinstance(user, UserName) else None, person)


def _secret(reference: Secret | None) -> str | None:
    return reference.read() if reference is not None else None


def _no_policy() -> Any:  # Any: see POLICIES
    unsecured: Any = security_policies.SecurityPolicyNone  # Any: it has no annotations
    return unsecured()


def _client(options: OpcUa, policy: Any) -> Client:  # Any: see POLICIES
    client = Client(options.endpoint, timeout=options.timeout_s)
    client.uaclient = _Transport(options.timeout_s)
    client.security_policy = policy
    client.uaclient.set_security(policy)
    client.application_uri = options.application_uri
    client.name = client.description = "Holdfast"
    client.product_uri = "urn:holdfast"
    client.session_timeout = int(options.keep_s * 1000)
    client.max_messagesize, client.max_chunkcount = MAX_MESSAGE, MAX_MESSAGE // 1024
    return client


async def _policy(options: OpcUa, clock: Clock, ours: _Ours, where: str) -> Any:  # Any: see POLICIES
    """The security policy, with the server's certificate in it if that is trusted. Raises Refused, Misfit."""
    security = options.security
    if ours.identity is None:
        return _no_policy()
    described = await endpoints(options)
    shape, mode = POLICIES[security.policy], MODES[security.mode]
    offered = [one for one in described if one.SecurityPolicyUri == shape.URI and one.SecurityMode == mode and one.ServerCertificate]
    if not offered:
        raise Misfit(f"{where}: {security.policy} with {security.mode} is not offered, but {_offers(described)}: change security")
    der = certificates.first_of_chain(offered[0].ServerCertificate)
    certificate = await asyncio.to_thread(_judged, security, der, clock.time_ns(), options.name, where)
    own = x509.load_der_x509_certificate(ours.identity.certificate)
    with _translating(where):
        return shape(certificate, own, ours.identity.key, mode)


def _judged(security: Security, der: bytes, now_ns: int, name: str, where: str) -> x509.Certificate:
    try:
        return certificates.judge(Path(security.folder), der, now_ns)
    except Untrusted as error:
        mark = x509.load_der_x509_certificate(der) if der[:1] == b"\x30" else None
        shown = certificates.fingerprint(mark)[:16] if mark is not None else "FINGERPRINT"
        raise Refused(
            f"{where}: {error}: compare the fingerprint with the server's own, then holdfast opcua trust accept SITE {name} {shown}"
        ) from error


def _offers(described: Iterable[ua.EndpointDescription]) -> str:
    said = {f"{str(one.SecurityPolicyUri).rpartition('#')[2]} with {one.SecurityMode.name}" for one in described}
    return ", ".join(sorted(said))[:300] or "nothing"


async def endpoints(options: OpcUa) -> list[ua.EndpointDescription]:
    """What the server offers, asked without security: nothing in it is believed but what a certificate proves."""
    where = place(options.endpoint)
    client = _client(options, _no_policy())
    wire: _Wire | None = None
    try:
        with _translating(where):
            wire = await _open(client, options)
            return list(await client.get_endpoints())[:100]
    finally:
        if wire is not None:
            await _hang_up(client, wire)


async def _open(client: Client, options: OpcUa) -> _Wire:
    """Connection and secure channel."""
    parts = urlsplit(options.endpoint)
    await client.uaclient.connect_socket(parts.hostname or "", parts.port or DEFAULT_PORT)
    wire = client.uaclient.protocol
    assert isinstance(wire, _Wire)  # what _Transport makes
    try:
        await client.send_hello()
        await client.open_secure_channel()
    except BaseException as error:
        trouble = wire.trouble
        await _hang_up(client, wire)
        if trouble is not None and isinstance(error, Exception) and not isinstance(error, UaStatusCodeError):
            raise trouble from error
        raise
    return wire


async def _begin(client: Client, options: OpcUa, ours: _Ours, clock: Clock, where: str) -> None:
    """A new session. It is closed again where the server does not let us into it."""
    if ours.identity is not None:
        client.certificate_validator = _validator(options, clock, where)
    await client.create_session()
    try:
        client._policy_ids = [_token_policy(client, options, where)]
        await _activate(client, options, ours)
    except BaseException:
        await client._close_session_quiet()
        raise


async def _resume(client: Client, options: OpcUa, ours: _Ours, kept: Kept) -> bool:
    """Whether the server lets us into the session of before."""
    client.uaclient.session.restore_authentication_token(kept.token)
    asyncuas: Any = client  # Any: asyncua's annotation of its nonce says None
    asyncuas._server_nonce, client._policy_ids = kept.nonce, kept.policies
    if client.security_policy.peer_certificate is None:
        client.security_policy.peer_certificate = kept.server_certificate
    try:
        await _activate(client, options, ours)
    except UaStatusCodeError as error:
        if error.code & 0xFFFF0000 not in GONE:
            raise
        client.uaclient.session.reset_authentication_token()
        client._server_nonce = None
        if ours.identity is None:
            client.security_policy.peer_certificate = None
        return False
    return True


async def _activate(client: Client, options: OpcUa, ours: _Ours) -> None:
    user = options.user
    if ours.user is not None:
        client.user_certificate = x509.load_der_x509_certificate(ours.user.certificate)
        client.user_private_key = ours.user.key
    name = user.name if isinstance(user, UserName) else None
    await client.activate_session(username=name, password=ours.password, certificate=client.user_certificate)


def _token_policy(client: Client, options: OpcUa, where: str) -> ua.UserTokenPolicy:
    """How the server wants to be told who we are: by a policy of ours. Raises Refused."""
    user = options.user
    kind = (
        ua.UserTokenType.UserName
        if isinstance(user, UserName)
        else ua.UserTokenType.Certificate
        if isinstance(user, X509)
        else ua.UserTokenType.Anonymous
    )
    offered = [one for one in client._policy_ids if one.TokenType == kind]
    if not offered:
        takes = ", ".join(sorted({one.TokenType.name for one in client._policy_ids})) or "nobody"
        raise Refused(f"{where}: the server takes no {kind.name} user here, but {takes}: change user")
    if kind == ua.UserTokenType.Anonymous:
        return offered[0]
    channel = client.security_policy.URI
    safe = [one for one in offered if (one.SecurityPolicyUri or channel) in ALLOWED]
    if safe:
        return safe[0]
    encrypted = client.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
    plain = [one for one in offered if (one.SecurityPolicyUri or channel) == NONE_URI]
    if plain and isinstance(user, UserName) and (encrypted or user.in_the_clear):
        return plain[0]
    raise Refused(
        f"{where}: the server takes the user only in a way that is readable on the network or deprecated: "
        "choose an encrypted security.policy, or set user.in_the_clear where the network is trusted"
    )


def _validator(options: OpcUa, clock: Clock, where: str) -> Callable[[Any, Any], Awaitable[None]]:  # Any: asyncua's own
    async def validate(certificate: x509.Certificate, application: Any) -> None:  # Any: an ApplicationDescription
        der = certificate.public_bytes(serialization.Encoding.DER)
        await asyncio.to_thread(_judged, options.security, der, clock.time_ns(), options.name, where)
        said = certificates.uris(certificate)
        if application.ApplicationUri not in said:
            raise Refused(
                f"{where}: the server says that it is {application.ApplicationUri!r}, and its certificate is for {said}: tell its maker"
            )

    return validate


def _unhook(client: Client) -> None:
    client.uaclient.pre_request_hook = None


async def _hang_up(client: Client, wire: _Wire) -> None:
    """Close the channel and the connection, whatever state they are in."""
    if wire.state is UASocketState.OPEN and wire.trouble is None and client.uaclient.protocol is not None:
        with contextlib.suppress(UaError, OSError, ValueError, AttributeError):  # a channel that was never secured has no keys
            await wire.close_secure_channel()
    wire._fail_all_pending(ConnectionError("the connection was closed"))
    client.uaclient.disconnect_socket()
    if wire.transport is not None:
        wire.transport.abort()
    await asyncio.wait({wire.lost}, timeout=CLOSE_S)


def _look_at(future: asyncio.Future[Any]) -> None:  # Any: see Peer.post
    """An error that nobody waits for any more is no news: the connection's end is told where it is used."""
    if not future.cancelled():
        future.exception()


# ---------------------------------------------------------------------------------------------------- errors


def _wire_error(chunk: bytes) -> DriverError:
    """An ERR message (OPC 10000-6, 7.1.2.5)."""
    status = int.from_bytes(chunk[8:12], "little")
    reason = chunk[16 : 16 + 200].decode("utf-8", "replace")
    text = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return _of_status(status, f"the server ended the connection: {name_of(status)}" + (f" ({text})" if text else ""))


def name_of(status: int) -> str:
    """``BadNodeIdUnknown`` for 0x80340000."""
    return str(ua.StatusCode(ua.UInt32(status & 0xFFFF0000)).name)


def _of_status(status: int, text: str) -> DriverError:
    code = status & 0xFFFF0000
    if code in REFUSALS:
        return Refused(f"{text}: {REFUSALS[code]}")
    if code in MISFITS:
        return Misfit(f"{text}: {MISFITS[code]}")
    return Unreachable(f"{text}: it will be tried again")


def of_fault(fault: Fault, where: str, doing: str) -> DriverError:
    """A refused request as one of the contract's errors."""
    return _of_status(fault.status, f"{where}: {doing}: {name_of(fault.status)}")


class _translating:  # used as a statement, as contextlib's are
    """``with _translating(where):`` foreign errors leave as the contract's."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:  # Any: a traceback
        if isinstance(error, Exception) and not isinstance(error, Refused | Misfit | Unreachable):
            raise _translated(error, self._where) from error
        if isinstance(error, DriverError) and self._where not in str(error):
            raise _translated(error, self._where) from error


def _translated(error: Exception, where: str) -> DriverError:
    if isinstance(error, DriverError):
        return error if where in str(error) else type(error)(f"{where}: {error}")
    if isinstance(error, UaStatusCodeError):
        return _of_status(error.code, f"{where}: {name_of(error.code)}")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where}: no answer in time: check host and port in endpoint, the server and the network")
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return Unreachable(f"{where}: {reason}: check that the server runs and is reachable from here")
    if isinstance(error, InvalidSignature):
        return Refused(f"{where}: a signature of the server is wrong: somebody may sit between, or it has a new certificate")
    if isinstance(error, UaError | ValueError | TypeError | AttributeError | IndexError | KeyError | RecursionError | OverflowError):
        return Misfit(f"{where}: an answer makes no sense ({type(error).__name__}: {str(error)[:200]}): is it an OPC UA server?")
    raise error
