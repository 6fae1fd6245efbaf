"""An OPC UA face, running: its port, who may come through it, and asyncua behind that.

asyncua gives the secure channel, its cryptography, the encoding and the services. What it leaves open is closed here:

* A chunk longer than agreed on, or a flood of requests, is not gathered; who does not read its answers is cut off.
* The certificate of a program is judged before a secured channel is opened to it; asyncua would look at the one that is named later.
* Without security nothing is answered but which endpoints there are, unless the document says none; asyncua would answer everything.
* Passwords are compared in constant time and taken encrypted only; tokens of sessions cannot be guessed; a session that is taken up again
  must come from the same program.
* Services that would change the server (nodes, registrations) do not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import hmac
import ipaddress
import logging
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import Buffer, ServiceError
from asyncua.crypto import security_policies, uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.address_space import AttributeService, MethodService, NodeManagementService, ViewService
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import header_from_binary, nodeid_from_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from gateway.commands import Gate
from gateway.config.faces import OpcuaFace, networks
from gateway.config.model import CLOCK, COMMANDS, Gateway
from gateway.faces.opcua.nodes import Nodes, standard_nodes
from gateway.faces.opcua.numbers import moment, named, standard, status
from gateway.faces.opcua.sessions import MOST_OPERATIONS, Desk, Session
from gateway.faces.opcua.subscriptions import Sampler, Subscriptions
from gateway.faces.opcua.tree import ROOT, Tree, application, grow, namespace
from gateway.faces.opcua.values import Readings
from gateway.latest import Latest
from gateway.links import Status, Up
from gateway.tasks import cancel
from protocols.clock import Clock
from protocols.contract import Misfit, Unreachable
from protocols.opcua import certificates
from protocols.opcua.certificates import Identity, Untrusted, Unusable
from protocols.secret import SecretMissing

log = structlog.get_logger("holdfast.face")


class _Trouble(logging.Handler):
    """What goes wrong within a request that asyncua answers BadInternalError: in the log, as far as it is said for the first time."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and repr(type(error)) not in self._said:
            self._said.add(repr(type(error)))
            log.warning("opcua_request_failed", error=f"{type(error).__name__}: {str(error)[:200]}")


logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # what it would say, we say once and better
_errors = logging.getLogger("asyncua.server.uaprocessor")
_errors.setLevel(logging.ERROR)
_errors.propagate = False
_errors.addHandler(_Trouble())

MAX_CHUNK: Final = 65535
LEAST_CHUNK: Final = 8192
"""OPC 10000-6, 7.1.2.3."""
MANY_WAITING: Final = 32
MUCH_WAITING: Final = 128 * 1024
"""Chunks of a client that wait, and their bytes; above it nothing more is read."""
FIRST_S: Final = 10.0
"""How long a connection may stay without a session."""
DRAIN_S: Final = 10.0
"""How long a client may leave its answers unread."""
MOST_WRITES: Final = 8
"""Write requests of one client that are carried out at the same time."""
MOST_FAILURES: Final = 3
"""Refused users on one connection."""
FAILURE_S: Final = 1.0
SAID_AT_MOST: Final = 100
"""Refused clients that are named in the log; more are counted alone."""
KEPT_MESSAGES: Final = 20
"""Messages of a subscription that can be asked for again."""
SESSION_MS: Final = 60_000.0
"""Longest time that a session lives without its client."""
GROWN_AT_ONCE: Final = 2000

_IDS: Final = ObjectIds
_SC: Final = StatusCodes
_NONE: Final = security_policies.SecurityPolicyNone.URI
_POLICIES: Final[dict[str, tuple[Any, int]]] = {  # Any: asyncua's classes share no base that says what they take
    "none": (security_policies.SecurityPolicyNone, 0),
    "Basic256Sha256": (security_policies.SecurityPolicyBasic256Sha256, 70),
    "Aes128_Sha256_RsaOaep": (security_policies.SecurityPolicyAes128Sha256RsaOaep, 75),
    "Aes256_Sha256_RsaPss": (security_policies.SecurityPolicyAes256Sha256RsaPss, 80),
}
_TRANSPORT: Final = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"


def _request(name: str) -> int:
    return int(getattr(_IDS, f"{name}Request_Encoding_DefaultBinary"))


_DISCOVERY: Final = {_request("GetEndpoints"), _request("FindServers"), _request("CloseSecureChannel")}
_CLOSED: Final = {
    _request(name)
    for name in ("RegisterServer", "RegisterServer2", "AddNodes", "DeleteNodes", "AddReferences", "DeleteReferences", "HistoryRead", "Call")
}
_WRITE, _BROWSE, _BROWSE_NEXT = _request("Write"), _request("Browse"), _request("BrowseNext")
_CREATE, _ACTIVATE = _request("CreateSession"), _request("ActivateSession")
_COUNT_AT: Final[dict[int, int]] = {
    _request("Read"): 12,
    _WRITE: 0,
    _request("CreateMonitoredItems"): 8,
    _request("ModifyMonitoredItems"): 8,
    _request("SetMonitoringMode"): 8,
    _request("TranslateBrowsePathsToNodeIds"): 0,
    _request("RegisterNodes"): 0,
    _request("UnregisterNodes"): 0,
    _request("DeleteSubscriptions"): 0,
    _request("SetPublishingMode"): 1,
    _request("Publish"): 0,
}
"""Bytes between the header of a request and the number of its operations."""
_LIMITS: Final = (
    "MaxNodesPerRead", "MaxNodesPerWrite", "MaxNodesPerBrowse", "MaxNodesPerRegisterNodes", "MaxNodesPerTranslateBrowsePathsToNodeIds",
    "MaxMonitoredItemsPerCall",
)  # fmt: skip
_ENCRYPTED: Final[dict[str, Callable[[Any, Any], bytes]]] = {  # Any: asyncua has no annotations here
    "http://www.w3.org/2001/04/xmlenc#rsa-oaep": uacrypto.decrypt_rsa_oaep,
    "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256": uacrypto.decrypt_rsa_oaep_sha256,
}
"""Ways to encrypt a password. RSA 1.5 is not among them: it tells who tries what a password is."""
_SIGNED: Final = ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "http://opcfoundation.org/UA/security/rsa-pss-sha2-256")


@dataclass
class Users:
    """Who may enter. asyncua asks it at each ActivateSession."""

    face: OpcuaFace
    hashes: dict[str, bytes] = field(default_factory=dict)
    """Of the passwords, as they are at this moment."""

    def refresh(self) -> list[str]:
        """Read the passwords; what is wrong with those that cannot be read. Reads files."""
        self.hashes, troubles = {}, []
        for user in self.face.users:
            try:
                self.hashes[user.name] = _hash(user.password.read())
            except SecretMissing as error:
                troubles.append(f"user {user.name}: {error}")
        return troubles

    def get_user(
        self, server: InternalServer, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        # Any: asyncua's own
        if username is not None:
            expected = self.hashes.get(username)
            same = hmac.compare_digest(_hash(password or ""), expected or _hash(secrets.token_hex()))
            return User(role=UserRole.User, name=_printable(username)) if expected is not None and same else None
        if isinstance(certificate, _UserCertificate):
            subject = certificates.subject(x509.load_der_x509_certificate(bytes(certificate)))
            return User(role=UserRole.User, name=subject)
        return User(role=UserRole.User, name=None) if self.face.anonymous else None


class _UserCertificate(bytes):
    """A user's, trusted and proven; not the one of a program."""


def _hash(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:100]


class Server(InternalServer):
    """asyncua's server on our nodes, with our sessions and subscriptions."""

    def __init__(self, face: OpcuaFace, nodes: Nodes, gate: Gate, sampler: Sampler, clock: Clock, users: Users) -> None:
        super().__init__(user_manager=users)  # type: ignore[arg-type]  # it has the one method that is asked
        self.aspace = nodes
        self.attribute_service = AttributeService(nodes)
        self.view_service = ViewService(nodes)
        self.method_service.stop()
        self.method_service = MethodService(nodes)
        self.node_mgt_service = NodeManagementService(nodes)
        self.subscription_service = Subscriptions(self, nodes, sampler, face)
        self.isession = InternalSession(self, nodes, self.subscription_service, "Internal", user=User(role=UserRole.Admin))
        self.current_time_node.session = self.isession
        self.server_status_node.session = self.isession
        self.disabled_clock = True
        self.max_session_timeout_ms = SESSION_MS
        self.max_unacked_messages_per_subscription = KEPT_MESSAGES
        self._face = face
        self._desk = Desk(face, nodes, gate, clock)
        self.users = users

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        """They are there already."""

    def create_session(self, name: str, user: User | None = None, external: bool = False) -> Session:
        if len(self._external_sessions) >= self._face.max_clients:
            raise ServiceError(_SC.BadTooManySessions)
        anybody = user or User(role=UserRole.Anonymous)
        session = Session(self, self.aspace, self.subscription_service, name, user=anybody, external=False, desk=self._desk)
        session.external = external
        session.auth_token = named(secrets.token_bytes(32), 0)
        if external:
            self.register_external_session(session)
        return session

    def decrypt_user_token(self, isession: Any, token: ua.UserNameIdentityToken) -> tuple[str, str]:  # Any: a Session
        """Name and password. Raises ServiceError where the password could be read on its way."""
        if not token.EncryptionAlgorithm:
            if not isession.is_encrypted:
                raise ServiceError(_SC.BadIdentityTokenRejected)
            return str(token.UserName), bytes(token.Password or b"").decode()
        decrypt = _ENCRYPTED.get(token.EncryptionAlgorithm)
        if decrypt is None:
            raise ServiceError(_SC.BadIdentityTokenRejected)
        raw = decrypt(self.private_key, token.Password)
        length = int.from_bytes(raw[:4], "little")
        nonce = isession.nonce or b""
        if len(raw) < 4 + length or length < len(nonce) or not hmac.compare_digest(raw[4 + length - len(nonce) : 4 + length], nonce):
            raise ServiceError(_SC.BadIdentityTokenInvalid)
        return str(token.UserName), raw[4 : 4 + length - len(nonce)].decode()

    def verify_x509_token(self, isession: Any, token: ua.X509IdentityToken, signature: ua.SignatureData) -> bytes:  # Any: a Session
        if not isession.accepted or token.CertificateData != isession.accepted or signature.Algorithm not in _SIGNED:
            raise ServiceError(_SC.BadIdentityTokenRejected)
        return _UserCertificate(super().verify_x509_token(isession, token, signature))


class _Processor(UaProcessor):
    """What one client sends. It judges before asyncua sees."""

    def __init__(self, shop: Shop, transport: asyncio.Transport, client: str) -> None:
        limits = TransportLimits(MAX_CHUNK, MAX_CHUNK, shop.face.max_message_bytes // LEAST_CHUNK + 2, shop.face.max_message_bytes)
        super().__init__(shop.server, transport, limits)
        self.set_policies(shop.policies)  # type: ignore[no-untyped-call]  # asyncua's
        self._shop = shop
        self._client = client
        self._failures = 0
        self._writes: set[asyncio.Task[None]] = set()
        """They go their way, and are recorded, also where the client does not wait for them."""

    async def process(self, header: Any, body: Any) -> bool:  # Any: asyncua's own
        """One chunk; False ends the connection."""
        kind = header.MessageType
        if kind == ua.MessageType.SecureOpen and not self._connection.is_open():
            if not await self._is_welcome(header, body):
                return False
        elif kind in (ua.MessageType.SecureMessage, ua.MessageType.SecureClose) and not self._connection.is_open():
            return False
        going: bool = await super().process(header, body)  # type: ignore[no-untyped-call]  # asyncua's
        if kind == ua.MessageType.Hello and not self._limits.max_send_buffer >= LEAST_CHUNK:
            return False
        return going

    async def _is_welcome(self, header: Any, body: Any) -> bool:  # Any: as above
        """Whether a secure channel may be opened to this program; it is answered where not."""
        opening = struct_from_binary(ua.AsymmetricAlgorithmHeader, body.copy(header.body_size))
        if opening.SecurityPolicyURI == _NONE:
            return True
        if opening.SecurityPolicyURI not in {policy.cls.URI for policy in self._shop.policies}:
            self._shop.refused(self._client, f"security policy {_printable(str(opening.SecurityPolicyURI))} is not offered")
            return self._end(_SC.BadSecurityPolicyRejected)
        try:
            now_ns = self._shop.clock.time_ns()
            await asyncio.to_thread(certificates.judge, Path(self._shop.face.security.folder), opening.SenderCertificate or b"", now_ns)
        except Untrusted as error:
            self._shop.refused(self._client, str(error))
            return self._end(_SC.BadSecurityChecksFailed)
        return True

    def _end(self, code: int) -> bool:
        self._transport.write(b"ERRF" + struct.pack("<IIi", 16, code, -1))  # OPC 10000-6, 7.1.2.5
        return False

    async def process_message(self, seqhdr: Any, body: Any) -> bool:  # Any: as above
        """One request; False ends the connection."""
        ahead = body.copy()
        kind = nodeid_from_binary(ahead).Identifier
        request = struct_from_binary(ua.RequestHeader, ahead)
        try:
            await self._admit(kind, request, ahead)
        except ServiceError as error:
            self._fault(request, seqhdr, error.code)
            return True
        if kind == _WRITE:
            while len(self._writes) >= MOST_WRITES:
                await asyncio.wait(self._writes, return_when=asyncio.FIRST_COMPLETED)
            task = self._shop.spawn(self._carry_out(seqhdr, body))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)
            return True
        if kind == _BROWSE_NEXT and isinstance(self.session, Session) and self.session.is_activated():
            params = struct_from_binary(ua.BrowseNextParameters, ahead)
            if len(params.ContinuationPoints) > MOST_OPERATIONS:
                self._fault(request, seqhdr, _SC.BadTooManyOperations)
                return True
            response = ua.BrowseNextResponse()
            response.Parameters.Results = await self.session.browse_on(params)
            self.send_response(request.RequestHandle, seqhdr, response)  # type: ignore[no-untyped-call]  # asyncua's
            return True
        going = await self._pass_on(seqhdr, body)
        return await self._is_in() and going if kind == _ACTIVATE else going

    async def _carry_out(self, seqhdr: Any, body: Any) -> None:  # Any: as above
        try:
            await self._pass_on(seqhdr, body)
        except (OSError, RuntimeError) as error:
            self._shop.refused(self._client, f"it did not wait for its answer ({type(error).__name__})")

    async def _pass_on(self, seqhdr: Any, body: Any) -> bool:  # Any: as above
        going: bool = await super().process_message(seqhdr, body)  # type: ignore[no-untyped-call]  # asyncua's
        return going

    def _fault(self, request: Any, seqhdr: Any, code: int) -> None:  # Any: as above
        response = ua.ServiceFault()
        response.ResponseHeader.ServiceResult = status(code)
        self.send_response(request.RequestHandle, seqhdr, response)  # type: ignore[no-untyped-call]  # asyncua's

    async def _admit(self, kind: Any, request: Any, ahead: Any) -> None:  # Any: as above
        """Raises ServiceError where this request is none for this face. ``ahead``: what follows its header."""
        secured = self._connection.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        if kind not in _DISCOVERY and not secured and "none" not in self._shop.face.security.policies:
            raise ServiceError(_SC.BadSecurityModeRejected)
        if kind in _CLOSED:
            raise ServiceError(_SC.BadServiceUnsupported)
        if kind in _COUNT_AT or kind == _BROWSE:
            view = ahead.copy()
            if kind == _BROWSE:
                nodeid_from_binary(view)
            view.skip(16 if kind == _BROWSE else _COUNT_AT[kind])
            if int.from_bytes(view.read(4), "little", signed=True) > MOST_OPERATIONS:
                raise ServiceError(_SC.BadTooManyOperations)
        if kind == _CREATE:
            await self._before_create(struct_from_binary(ua.CreateSessionParameters, ahead.copy()))
        elif kind == _ACTIVATE:
            await self._before_activate(request, struct_from_binary(ua.ActivateSessionParameters, ahead.copy()), secured)

    @property
    def _certificate(self) -> bytes | None:
        """Of the program at the other end of the channel."""
        found: bytes | None = self._connection.security_policy.peer_certificate
        return certificates.first_of_chain(found) if found else None

    async def _before_create(self, params: ua.CreateSessionParameters) -> None:
        if self.session is not None:
            await self.session.close_session(True)
            self.session = None
        own = self._certificate
        if own is None:
            return
        if certificates.first_of_chain(params.ClientCertificate or b"") != own:
            raise ServiceError(_SC.BadCertificateInvalid)
        if params.ClientDescription.ApplicationUri not in certificates.uris(x509.load_der_x509_certificate(own)):
            self._shop.refused(self._client, f"its certificate is not for {_printable(str(params.ClientDescription.ApplicationUri))}")
            raise ServiceError(_SC.BadCertificateUriInvalid)

    async def _before_activate(self, request: Any, params: ua.ActivateSessionParameters, secured: bool) -> None:  # Any: as above
        if self._failures:
            await self._shop.clock.sleep_until(self._shop.clock.monotonic() + FAILURE_S)
        session = self.session or self._shop.server.lookup_external_session(request.AuthenticationToken)
        if not isinstance(session, Session):
            return
        if self.session is not None and session.certificate is None:
            session.certificate = self._certificate
        if session.certificate != self._certificate:
            raise ServiceError(_SC.BadSecurityChecksFailed)
        session.is_encrypted = secured
        for trouble in await asyncio.to_thread(self._shop.users.refresh):
            self._shop.refused(self._client, trouble)
        token = params.UserIdentityToken
        session.accepted = None
        if isinstance(token, ua.X509IdentityToken) and self._shop.face.user_certificates:
            folder = Path(self._shop.face.security.folder) / "users"
            try:
                await asyncio.to_thread(certificates.judge, folder, token.CertificateData or b"", self._shop.clock.time_ns())
                session.accepted = token.CertificateData
            except Untrusted as error:
                self._shop.refused(self._client, f"user: {error}")

    async def _is_in(self) -> bool:
        """After an ActivateSession: False where the client has tried often enough."""
        if self.session is not None and self.session.is_activated():
            self._failures = 0
            return True
        self._failures += 1
        self._shop.refused(self._client, "user refused")
        return self._failures < MOST_FAILURES


NONSENSE: Final = (
    UaError, ServiceError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError, struct.error,
)  # fmt: skip
"""What asyncua raises where a client breaks the encoding."""


class _Protocol(asyncio.Protocol):
    """One connection: whole chunks, one after the other."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._pending = bytearray()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._flows = asyncio.Event()
        self._flows.set()
        self._transport: asyncio.Transport | None = None
        self._processor: _Processor | None = None
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._waiting = 0

    @property
    def _is_full(self) -> bool:
        return self._chunks.qsize() > MANY_WAITING or self._waiting > MUCH_WAITING

    def connection_made(self, transport: Any) -> None:  # Any: asyncio's annotation is a base that cannot write
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if peer else "unknown"
        self._transport = transport
        if reason := self._shop.objection(client):
            self._shop.refused(client, reason)
            transport.abort()
            return
        self._shop.connections.add(self)
        self._processor = _Processor(self._shop, transport, client)
        self._task = self._shop.spawn(self._attend(self._processor, transport, client))

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._flows.clear()

    def resume_writing(self) -> None:
        self._flows.set()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 8:
            size = int.from_bytes(self._pending[4:8], "little")
            if bytes(self._pending[:3]) not in (b"HEL", b"OPN", b"MSG", b"CLO") or not 8 < size <= MAX_CHUNK:
                self._pending.clear()
                self.abort()
                return
            if len(self._pending) < size:
                return
            self._chunks.put_nowait(bytes(self._pending[:size]))
            self._waiting += size
            del self._pending[:size]
        if self._is_full and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    async def _attend(self, processor: _Processor, transport: asyncio.Transport, client: str) -> None:
        watch = asyncio.get_running_loop().call_later(FIRST_S, self._look, processor)
        try:
            while await self._next(processor):
                pass
        except TimeoutError:
            self._shop.refused(client, "it does not read its answers")
        except NONSENSE as error:
            self._shop.refused(client, f"what it sends makes no sense ({type(error).__name__})")
        except (InvalidSignature, UnsupportedAlgorithm):
            self._shop.refused(client, "a signature is wrong")
        finally:
            watch.cancel()
            self._shop.connections.discard(self)
            transport.close()
            with contextlib.suppress(asyncio.CancelledError):
                await processor.close()  # type: ignore[no-untyped-call]  # asyncua's

    async def _next(self, processor: _Processor) -> bool:
        chunk = await self._chunks.get()
        self._waiting -= len(chunk)
        if self._paused and not self._is_full and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        buffer = Buffer(chunk)
        going = await processor.process(header_from_binary(buffer), buffer)
        async with asyncio.timeout(DRAIN_S):
            await self._flows.wait()
        await asyncio.sleep(0)
        return going

    def _look(self, processor: _Processor) -> None:
        if processor.session is None or not processor.session.is_activated():
            self.abort()


@dataclass
class Shop:
    """What all connections of a face share."""

    face: OpcuaFace
    server: Server
    users: Users
    policies: list[Any]  # Any: asyncua's SecurityPolicyFactory has no annotations
    clock: Clock
    status: Status
    connections: set[_Protocol] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    said: set[tuple[str, str]] = field(default_factory=set)

    def refused(self, client: str, why: str) -> None:
        """Count it, and say it once."""
        self.status.counters.errors["refused"] += 1
        if (client, why) not in self.said and len(self.said) < SAID_AT_MOST:
            self.said.add((client, why))
            log.warning("client_refused", face=self.face.name, client=client, reason=why)

    def objection(self, client: str) -> str:
        """Why a connection is not taken; empty if it is."""
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return "no address"
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not any(mapped in network for network in networks(self.face.clients)):
            return "not among the clients"
        return "too many connections" if len(self.connections) >= 2 * self.face.max_clients else ""

    def spawn(self, work: Any) -> asyncio.Task[None]:  # Any: a coroutine
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


async def session(
    face: OpcuaFace,
    gateway: Gateway,
    latest: Latest,
    gate: Gate,
    status: Status,
    clock: Clock,
    up: Up,
    *,
    opened: Callable[[Shop], None] = lambda shop: None,
) -> None:
    """Serve until cancelled; ``opened`` is told what connections will share.

    Raises Unreachable where the address cannot be used, Misfit where a certificate cannot.
    """
    name = application(gateway.group, gateway.name, face.name)
    identity = await asyncio.to_thread(_identity, face, name, clock.time_ns())
    tree = Tree()
    for count, _ in enumerate(grow(tree, gateway.name, [each for each in latest.devices() if each.name not in (COMMANDS, CLOCK)])):
        if count % GROWN_AT_ONCE == 0:
            await asyncio.sleep(0)
    readings = Readings(latest, clock)
    uri = namespace(gateway.group, gateway.name)
    nodes = Nodes(await _standard(), tree, uri, readings, clock, writable=face.writable, period_ms=face.refresh_s * 1000)
    sampler = Sampler(readings, clock, face.refresh_s)
    users = Users(face)
    server = Server(face, nodes, gate, sampler, clock, users)
    certificate = x509.load_der_x509_certificate(identity.certificate)
    server.certificate, server.private_key = certificate, identity.key
    await server.init()
    policies = [_factory(policy, certificate, identity) for policy in face.security.policies]
    server.endpoints.extend(_endpoint(policy, face, gateway, name, identity) for policy in face.security.policies)
    await _dress(server, nodes, clock, [name, uri])
    shop = Shop(face, server, users, policies, clock, status)
    opened(shop)
    looking = shop.spawn(sampler.run())
    try:
        await _listen(shop, up, looking)
    finally:
        await cancel(looking)
        for one in list(shop.connections):
            one.abort()
        for task in list(shop.tasks):
            task.cancel()
        await asyncio.gather(*shop.tasks, return_exceptions=True)
        await server.subscription_service.delete_subscriptions(list(server.subscription_service.subscriptions))
        await server.stop()


async def _listen(shop: Shop, up: Up, looking: asyncio.Task[None]) -> None:
    """Until cancelled, or until nobody looks at the values any more."""
    face = shop.face
    try:
        listener = await asyncio.get_running_loop().create_server(lambda: _Protocol(shop), face.host, face.port)
    except OSError as error:
        raise Unreachable(f"{face.host}:{face.port}: {error.strerror or error}: free the port, or write another one") from error
    try:
        log.info("face_listens", face=face.name, host=face.host, port=listener.sockets[0].getsockname()[1])
        up()
        await asyncio.shield(looking)
    finally:
        listener.close()


def _identity(face: OpcuaFace, name: str, now_ns: int) -> Identity:
    security = face.security
    try:
        if security.cert_file:
            password = security.key_password.read() if security.key_password is not None else None
            return certificates.load_identity(security.cert_file, security.key_file, password)
        return certificates.own_identity(Path(security.folder), name, now_ns)
    except Unusable as error:
        raise Misfit(f"face {face.name}: {error}") from error


_known: list[dict[ua.NodeId, Any]] = []  # Any: asyncua's NodeData
_reading = asyncio.Lock()


async def _standard() -> dict[ua.NodeId, Any]:  # Any: as above
    """The standard nodes, read once a process."""
    async with _reading:
        if not _known:
            collects = gc.isenabled()
            gc.disable()  # half a million objects come to stay: to look through them again and again would hold up the scans
            try:
                _known.append(await asyncio.to_thread(standard_nodes))
            finally:
                gc.freeze()
                gc.collect()  # with next to nothing to look through; from here on it knows that what lives long has become little
                if collects:
                    gc.enable()
        return _known[0]


def _factory(policy: str, certificate: x509.Certificate, identity: Identity) -> Any:  # Any: see Shop.policies
    shape, _ = _POLICIES[policy]
    if policy == "none":
        return security_policies.SecurityPolicyFactory(shape, ua.MessageSecurityMode.None_, certificate, identity.key)  # type: ignore[no-untyped-call]  # asyncua's
    return security_policies.SecurityPolicyFactory(shape, ua.MessageSecurityMode.SignAndEncrypt, certificate, identity.key)  # type: ignore[no-untyped-call]  # asyncua's


def _endpoint(policy: str, face: OpcuaFace, gateway: Gateway, name: str, identity: Identity) -> ua.EndpointDescription:
    shape, level = _POLICIES[policy]
    url = f"opc.tcp://{face.host}:{face.port}"
    for_users = shape.URI if policy != "none" else security_policies.SecurityPolicyBasic256Sha256.URI
    tokens: list[ua.UserTokenPolicy] = []
    if face.anonymous:
        tokens.append(ua.UserTokenPolicy(PolicyId="anonymous", TokenType=ua.UserTokenType.Anonymous))
    if face.users:
        tokens.append(ua.UserTokenPolicy(PolicyId="password", TokenType=ua.UserTokenType.UserName, SecurityPolicyUri=for_users))
    if face.user_certificates:
        tokens.append(ua.UserTokenPolicy(PolicyId="certificate", TokenType=ua.UserTokenType.Certificate, SecurityPolicyUri=for_users))
    return ua.EndpointDescription(
        EndpointUrl=url,
        Server=ua.ApplicationDescription(
            ApplicationUri=name,
            ProductUri="urn:holdfast",
            ApplicationName=ua.LocalizedText(f"{gateway.name}, {face.name}"),
            ApplicationType=ua.ApplicationType.Server,
            DiscoveryUrls=[url],
        ),
        ServerCertificate=identity.certificate,
        SecurityMode=ua.MessageSecurityMode.None_ if policy == "none" else ua.MessageSecurityMode.SignAndEncrypt,
        SecurityPolicyUri=shape.URI,
        UserIdentityTokens=tokens,
        TransportProfileUri=_TRANSPORT,
        SecurityLevel=level,
    )


async def _dress(server: Server, nodes: Nodes, clock: Clock, names: list[str]) -> None:
    """What a client finds out about the server: namespaces, limits, who made it, the time."""
    now = moment(clock.time_ns())

    async def write(identity: int, value: Any, kind: ua.VariantType) -> None:  # Any: of that kind
        node = standard(identity)
        await nodes.write_attribute_value(node, AttributeIds.Value, ua.DataValue(ua.Variant(value, kind), SourceTimestamp=now))

    await write(_IDS.Server_NamespaceArray, ["http://opcfoundation.org/UA/", *names], ua.VariantType.String)
    await write(_IDS.Server_ServerArray, names[:1], ua.VariantType.String)
    await write(_IDS.Server_ServiceLevel, 255, ua.VariantType.Byte)
    for limit in _LIMITS:
        identity = getattr(_IDS, f"Server_ServerCapabilities_OperationLimits_{limit}")
        await write(identity, MOST_OPERATIONS, ua.VariantType.UInt32)
    build = ua.BuildInfo(
        ProductUri="urn:holdfast",
        ManufacturerName="Holdfast",
        ProductName="Holdfast gateway",
        SoftwareVersion=version("holdfast"),
        BuildNumber="",
        BuildDate=now,
    )
    for part in ("ProductUri", "ManufacturerName", "ProductName", "SoftwareVersion", "BuildNumber"):
        await write(getattr(_IDS, f"Server_ServerStatus_BuildInfo_{part}"), getattr(build, part), ua.VariantType.String)
    await write(_IDS.Server_ServerStatus_BuildInfo, build, ua.VariantType.ExtensionObject)

    def current() -> Any:  # Any: see moment
        return moment(clock.time_ns())

    def state(node: ua.NodeId, attribute: AttributeIds) -> ua.DataValue:
        said = ua.ServerStatusDataType(StartTime=now, CurrentTime=current(), State=ua.ServerState.Running, BuildInfo=build)
        return ua.DataValue(ua.Variant(said, ua.VariantType.ExtensionObject), SourceTimestamp=said.CurrentTime)

    def time(node: ua.NodeId, attribute: AttributeIds) -> ua.DataValue:
        return ua.DataValue(ua.Variant(current(), ua.VariantType.DateTime), SourceTimestamp=current())

    objects = nodes.copied(standard(_IDS.ObjectsFolder))
    assert objects is not None  # every server has it
    objects.references.append(nodes.reference_to(ROOT))
    await server.start()  # which writes the status: so the hooks come after it
    nodes.set_attribute_value_callback(standard(_IDS.Server_ServerStatus), AttributeIds.Value, state)
    nodes.set_attribute_value_callback(standard(_IDS.Server_ServerStatus_CurrentTime), AttributeIds.Value, time)
