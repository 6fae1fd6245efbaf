"""Which devices there are, in which part of their life, and what they show to prove who they are.

What is configured is here by itself; what was said about a device (registered, suspended, decommissioned) outlives restarts and
configurations. A credential that is not in the registry is none: where the state is lost, devices that push by its credentials are
refused until they are given new ones, and nobody gets in who was shut out.

Wiping a device's history inside an append-only journal is a promise about reading: what was recorded before ``wiped`` is given to
nobody through the API any more, and leaves the disk with its segments, when they are dropped for age or size.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlite_utils import Database, Migrations

from gateway.audit import Audit
from gateway.authority import Certificate, Certificates
from gateway.latest import Latest
from gateway.objections import Conflict, NotThere, Unavailable, Unknown
from gateway.registry.life import FOLLOWS, SHUT_OUT, LifeState
from gateway.registry.tokens import Claims, claims_of, signed
from gateway.registry.tracking import SAMPLE_S, Tracking
from gateway.state import State
from gateway.tasks import cancel, first_to_end
from protocols.clock import Clock
from protocols.model import Device, Quality

log = structlog.get_logger("holdfast.registry")

MIGRATIONS: Final = Migrations("registry")
ENROLMENT_PREFIX: Final = "hfe_"
MOST_ENTRIES: Final = 20_000
MOST_CREDENTIALS: Final = 16
"""Good ones of one device."""
LISTEN_S: Final = 1.0
"""Devices that were not heard yet are looked at so often, and no others."""
UNHEARD: Final = frozenset({LifeState.REGISTERED, LifeState.PROVISIONED})
KEY: Final = "device-tokens.key"
PUSHING: Final = frozenset({"mqtt", "coap-server", "webhook"})
"""Types of connections whose devices come to us."""
Kind = Literal["field", "pushing"]


@MIGRATIONS()
def _0001_devices(db: Database) -> None:
    device = {"name": str, "kind": str, "state": str, "since_ns": int, "reason": str, "by": str, "made_ns": int, "wiped_ns": int}
    db.table("device").create(device, pk="name", not_null=set(device))
    step = {"id": int, "device": str, "before": str, "after": str, "time_ns": int, "by": str, "reason": str}
    db.table("device_step").create(step, pk="id", not_null=set(step))
    db.table("device_step").create_index(["device"])
    token = {"id": str, "device": str, "made_ns": int, "made_by": str, "expires_ns": int, "revoked_ns": int}
    db.table("device_token").create(token, pk="id", not_null=set(token))
    enrolment = {"digest": str, "device": str, "expires_ns": int}
    db.table("device_enrolment").create(enrolment, pk="digest", not_null=set(enrolment))


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What was said about one device."""

    name: str
    kind: Kind
    state: LifeState
    since_ns: int
    reason: str = ""
    by: str = "gateway"
    made_ns: int
    wiped_ns: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change in the life of a device."""

    device: str
    before: str
    after: str
    time_ns: int
    by: str
    reason: str


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A JWT that a device was given; its text is told once."""

    id: str
    device: str
    made_ns: int
    made_by: str
    expires_ns: int
    revoked_ns: int = 0


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """A chance to get a certificate, once."""

    digest: str
    device: str
    expires_ns: int


class Registry:
    """Belongs to the event loop. It is the :class:`protocols.contract.Admission` that drivers ask."""

    def __init__(
        self, state: State, certificates: Certificates, audit: Audit, latest: Latest, clock: Clock, *, kind_of: Callable[[str], Kind | None]
    ) -> None:
        """``kind_of`` says what a device of the site that runs is; None where it has none of this name."""
        self._state = state
        self._certificates = certificates
        self._audit = audit
        self._latest = latest
        self._clock = clock
        self._kind_of = kind_of
        self._entries: dict[str, Entry] = {}
        self._tokens: dict[str, Token] = {}
        self._enrolments: dict[str, Enrolment] = {}
        self._shut: dict[str, str] = {}
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._unheard: set[str] = set()
        """Devices that are active as soon as they have a good value."""
        self._come = asyncio.Event()
        """There may be more of them."""
        latest.listen(self._come.set)
        self.tracking = Tracking(latest, clock)
        self.on_shut: Callable[[Device], None] = lambda _device: None
        """Called once with a device of which nothing is taken from now on, so that its tags are said to be out of service."""
        self.on_admitted: Callable[[Device], None] = lambda _device: None
        """Called once with a device of which everything is taken again."""

    async def open(self) -> None:
        """Read what is kept, before the first device is asked. Where it cannot be read the gateway works without it."""
        try:
            await self._read()
        except Unavailable as trouble:
            log.error("registry_not_read", trouble=str(trouble), advice="nobody is shut out, and credentials of the registry prove nothing")

    async def _read(self) -> None:
        names = ("device", "device_token", "device_enrolment")
        devices, tokens, enrolments = await self._state.do(lambda db: [list(db.table(name).rows) for name in names])
        issued = await self._state.do(lambda db: db.table("certificate").count_where("purpose = 'device'"))
        for row in devices:
            self._hold(msgspec.convert(row, Entry))
        self._tokens = {row["id"]: msgspec.convert(row, Token) for row in tokens}
        self._enrolments = {row["digest"]: msgspec.convert(row, Enrolment) for row in enrolments}
        if tokens or issued:
            await self.ready()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Read what is kept, then look at how devices are, until left."""
        await self.open()
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            await cancel(task)

    async def _watch(self) -> None:
        """Sample all devices every SAMPLE_S, and listen to those that were not heard yet; where there are none, nothing is done."""
        sample_s = self._clock.monotonic()
        while True:
            try:
                if self._come.is_set() or self._clock.monotonic() >= sample_s:
                    sample_s = self._clock.monotonic() + SAMPLE_S
                    await self.look()
                else:
                    await self._heard(self._listened())
            except Unavailable as trouble:
                log.warning("registry_not_kept", trouble=str(trouble))
            if not self._unheard and not self._come.is_set():
                await first_to_end(self._clock.sleep_until(sample_s), self._come.wait())
            if self._unheard or self._come.is_set():
                await self._clock.sleep_until(self._clock.monotonic() + LISTEN_S)

    async def look(self) -> None:
        """Sample every device once; who was heard for the first time is active now."""
        self._come.clear()
        seen = await self.tracking.sample()
        self._unheard = {device.name for device in self._latest.devices() if self._waits(device.name)}
        await self._heard([name for name in seen if name in self._unheard])

    def _waits(self, name: str) -> bool:
        entry = self._entries.get(name)
        return not name.startswith("_") and (entry is None or entry.state in UNHEARD)

    def _listened(self) -> list[str]:
        """Who of those that were not heard yet has a good value now; it is sampled at once."""
        devices = [device for name in self._unheard if (device := self._latest.device(name)) is not None]
        return [one.name for one in devices if self._latest.best_quality(one) < Quality.UNCERTAIN and self.tracking.sample_one(one)]

    async def _heard(self, names: Iterable[str]) -> None:
        """Those called ``names``, of which something good was heard, are active now."""
        steps: list[Callable[[Database], None]] = []
        for name in names:
            self._unheard.discard(name)
            if self._waits(name):
                with contextlib.suppress(NotThere):  # it has gone since it was looked at
                    steps.append(self._stepped(self.get(name), LifeState.ACTIVE, "gateway", "it has given a good value")[1])
        if steps:  # in one go: a disk may need a second for each
            await self._state.do(lambda db: [step(db) for step in steps])

    # ------------------------------------------------------------------------------------------------ what drivers ask

    def refusal(self, device: str) -> str:
        """Why nothing of ``device`` is taken now; empty where it is."""
        return self._shut.get(device, "")

    def proves(self, device: str, token: str, certificate: bytes) -> bool:
        """Whether ``token`` or ``certificate`` (DER, whose key TLS has proven) is one that ``device`` was given and is good now."""
        now_ns = self._clock.time_ns()
        if token:
            claims = claims_of(token, self._key.public_key(), now_ns / 1e9) if self._key is not None else None
            held = self._tokens.get(claims.jti) if claims else None
            return held is not None and not held.revoked_ns and held.device == device == (claims.sub if claims else "")
        found = self._certificates.find(certificate) if certificate else None
        return found is not None and found.purpose == "device" and found.name == device and found.is_good(now_ns)

    def wiped(self, device: str) -> int | None:
        """What was recorded of ``device`` before this moment (UTC, ns) is given to nobody; None where all of it may be."""
        entry = self._entries.get(device)
        return entry.wiped_ns if entry is not None and entry.wiped_ns else None

    async def ready(self) -> None:
        """Make what is needed to judge tokens. Raises Unavailable."""
        await self._certificates.open()
        if self._key is None:
            try:
                self._key = await asyncio.to_thread(_key_in, self._state.folder / "authority")
            except OSError as error:
                raise Unavailable(f"the key of device tokens cannot be used ({error})", "look at the disk; readings go on") from error

    # ------------------------------------------------------------------------------------------------ what people ask

    def names(self) -> list[str]:
        """Every device that is configured or was registered."""
        configured = {device.name for device in self._latest.devices() if not device.name.startswith("_")}
        return sorted(configured | self._entries.keys())

    def get(self, name: str) -> Entry:
        """Raises NotThere."""
        entry = self._entries.get(name)
        if entry is not None:
            return entry
        kind = self._kind_of(name)
        if kind is None or self._latest.device(name) is None:
            raise NotThere(f"no device is called {name!r}", "GET /api/v1/registry lists them")
        return Entry(name=name, kind=kind, state=LifeState.REGISTERED, since_ns=0, made_ns=0)

    async def steps(self, name: str) -> list[Step]:
        """The life of a device, oldest first; at most the last 1000 changes."""
        rows = await self._state.do(
            lambda db: list(db.table("device_step").rows_where("device = ?", [name], order_by="id desc", limit=1000))
        )
        return [msgspec.convert({key: value for key, value in row.items() if key != "id"}, Step) for row in reversed(rows)]

    async def register(self, name: str, by: str, reason: str) -> Entry:
        """A device that will push, or one that was decommissioned and begins anew. Raises Conflict."""
        known = self._entries.get(name)
        if known is not None and known.state is LifeState.DECOMMISSIONED:
            return await self._step(known, LifeState.REGISTERED, by, reason)
        if known is not None or self._latest.device(name) is not None:
            raise Conflict(f"there is a device called {name!r} already", "take another name")
        if len(self._entries) >= MOST_ENTRIES:
            raise Conflict(f"{MOST_ENTRIES} devices are registered, and no more are taken")
        now_ns = self._clock.time_ns()
        entry = Entry(name=name, kind="pushing", state=LifeState.REGISTERED, since_ns=now_ns, made_ns=now_ns, by=by, reason=reason)
        await self._keep(entry, "", by, reason)
        return entry

    async def change(self, name: str, to: LifeState, by: str, reason: str) -> Entry:
        """The next state of a device. Raises NotThere, Conflict."""
        entry = self.get(name)
        if entry.state is to:
            return entry
        if to is LifeState.DECOMMISSIONED or entry.state is LifeState.DECOMMISSIONED:
            raise Conflict(f"{name} is {entry.state.value}: it is not made {to.value} so", "decommission it, or register it anew")
        return await self._step(entry, to, by, reason)

    async def decommission(self, name: str, by: str, reason: str, *, wipe: bool) -> Entry:
        """The end: all its credentials are dead at once, nothing of it is taken any more. Raises NotThere, Unavailable."""
        entry = self.get(name)
        if wipe:
            entry = msgspec.structs.replace(entry, wiped_ns=self._clock.time_ns())
        self._shut[name] = SHUT_OUT[LifeState.DECOMMISSIONED]  # first here: whatever the disk says, it is shut out
        now_ns = self._clock.time_ns()
        dead = [msgspec.structs.replace(each, revoked_ns=now_ns) for each in self.tokens_of(name) if not each.revoked_ns]
        self._tokens |= {each.id: each for each in dead}
        self._enrolments = {digest: each for digest, each in self._enrolments.items() if each.device != name}
        try:
            await self._certificates.revoke_all("device", name, "cessation_of_operation")
        finally:
            entry = await self._step(entry, LifeState.DECOMMISSIONED, by, reason, again=wipe)
        await self._state.do(lambda db: _kill(db, name, dead))
        return entry

    # ------------------------------------------------------------------------------------------------ credentials

    def tokens_of(self, name: str) -> list[Token]:
        return sorted((each for each in self._tokens.values() if each.device == name), key=lambda each: each.made_ns)

    async def certificates_of(self, name: str) -> list[Certificate]:
        await self._certificates.open()
        return self._certificates.of("device", name)

    async def invite(self, name: str, lifetime_s: float) -> tuple[str, int]:
        """A secret with which the device gets a certificate, once, and when it ends. It is told this once. Raises NotThere, Conflict."""
        self._must_take_credentials(self.get(name))
        secret = ENROLMENT_PREFIX + secrets.token_urlsafe(32)
        expires_ns = self._clock.time_ns() + round(lifetime_s * 1e9)
        enrolment = Enrolment(digest=_digest(secret), device=name, expires_ns=expires_ns)
        old = [digest for digest, each in self._enrolments.items() if each.device == name or each.expires_ns < self._clock.time_ns()]
        await self._state.do(lambda db: _replace_enrolments(db, old, msgspec.structs.asdict(enrolment)))
        for digest in old:
            self._enrolments.pop(digest, None)
        self._enrolments[enrolment.digest] = enrolment
        return secret, expires_ns

    async def enrol(self, name: str, secret: str, csr: str, days: int) -> Certificate:
        """The device's certificate for its one secret. Raises Unknown, the same for whatever is wrong with the secret; Unfit."""
        enrolment = self._enrolments.get(_digest(secret))
        if enrolment is None or enrolment.device != name or enrolment.expires_ns <= self._clock.time_ns() or self.refusal(name):
            raise Unknown("this enrolment token is not valid, or no longer", "ask for a new one: POST /api/v1/registry/{device}/enrolment")
        del self._enrolments[enrolment.digest]  # before anything is awaited: once is once
        try:
            made = await self._issue(name, csr, days, f"device:{name}")
        except BaseException:
            self._enrolments[enrolment.digest] = enrolment  # nothing was given for it
            raise
        await self._state.do(lambda db: db.table("device_enrolment").delete_where("digest = ?", [enrolment.digest]))
        return made

    async def renew(self, name: str, certificate: bytes, csr: str, days: int) -> Certificate:
        """A new certificate for whoever shows the old one. Raises Unknown, Unfit."""
        await self._certificates.open()
        if self.refusal(name) or not self.proves(name, "", certificate):
            raise Unknown("no certificate of this device was shown", "connect with the device's certificate, which must be good still")
        return await self._issue(name, csr, days, f"device:{name}")

    async def issue_token(self, name: str, lifetime_s: float, by: str) -> tuple[str, Token]:
        """A JWT for the device, told this once. Raises NotThere, Conflict."""
        await self.ready()
        entry = self.get(name)
        self._must_take_credentials(entry)
        assert self._key is not None
        now_ns = self._clock.time_ns()
        token = Token(id=secrets.token_urlsafe(12), device=name, made_ns=now_ns, made_by=by, expires_ns=now_ns + round(lifetime_s * 1e9))
        claims = Claims(sub=name, jti=token.id, iat=now_ns // 10**9, exp=token.expires_ns // 10**9, iss="urn:holdfast:gateway")
        text = await asyncio.to_thread(signed, claims, self._key)
        await self._state.do(lambda db: db.table("device_token").insert(msgspec.structs.asdict(token)))
        self._tokens[token.id] = token
        await self._provisioned(entry, by)
        return text, token

    async def revoke(self, name: str, credential: str) -> None:
        """A token (by its id) or a certificate (by its serial) of a device is good no longer. Twice is fine. Raises NotThere."""
        token = self._tokens.get(credential)
        if token is not None and token.device == name:
            revoked = msgspec.structs.replace(token, revoked_ns=token.revoked_ns or self._clock.time_ns())
            self._tokens[token.id] = revoked
            await self._state.do(lambda db: db.table("device_token").update(revoked.id, {"revoked_ns": revoked.revoked_ns}))
            return
        for each in await self.certificates_of(name):
            if each.serial == credential:
                await self._certificates.revoke(credential, "privilege_withdrawn")
                return
        raise NotThere(f"{name} has no credential {credential!r}", "GET /api/v1/registry/{device}/credentials lists them")

    async def _issue(self, name: str, csr: str, days: int, by: str) -> Certificate:
        entry = self.get(name)
        await self._certificates.open()
        self._must_take_credentials(entry)
        made = await self._certificates.issue(csr, purpose="device", name=name, days=days, made_by=by)
        await self._provisioned(entry, by)
        return made

    def _must_take_credentials(self, entry: Entry) -> None:
        if entry.state in SHUT_OUT:
            raise Conflict(f"{entry.name} gets no credentials: {SHUT_OUT[entry.state]}", "change its state first")
        now_ns = self._clock.time_ns()
        good = [each for each in self.tokens_of(entry.name) if not each.revoked_ns and each.expires_ns > now_ns]
        certificates = [each for each in self._certificates.of("device", entry.name) if each.is_good(now_ns)]
        if len(good) + len(certificates) >= MOST_CREDENTIALS:
            raise Conflict(f"{entry.name} has {MOST_CREDENTIALS} good credentials, and gets no more", "revoke those that nobody uses")

    async def _provisioned(self, entry: Entry, by: str) -> None:
        if entry.state is LifeState.REGISTERED:
            await self._step(entry, LifeState.PROVISIONED, by, "it was given a credential")

    # ------------------------------------------------------------------------------------------------ what is kept

    async def _step(self, entry: Entry, to: LifeState, by: str, reason: str, *, again: bool = False) -> Entry:
        if entry.state is to and not again:
            return entry
        if to not in FOLLOWS[entry.state] and entry.state is not to:
            allowed = ", ".join(sorted(each.value for each in FOLLOWS[entry.state]))
            raise Conflict(f"{entry.name} is {entry.state.value} and cannot become {to.value}", f"it can become {allowed}")
        stepped, step = self._stepped(entry, to, by, reason)
        await self._state.do(step)
        return stepped

    def _stepped(self, entry: Entry, to: LifeState, by: str, reason: str) -> tuple[Entry, Callable[[Database], None]]:
        """What it is now, and what makes that durable."""
        now_ns = self._clock.time_ns()
        stepped = msgspec.structs.replace(entry, state=to, since_ns=now_ns, reason=reason, by=by, made_ns=entry.made_ns or now_ns)
        return stepped, self._noted(stepped, entry.state.value, by, reason)

    async def _keep(self, entry: Entry, before: str, by: str, reason: str) -> None:
        await self._state.do(self._noted(entry, before, by, reason))

    def _noted(self, entry: Entry, before: str, by: str, reason: str) -> Callable[[Database], None]:
        """Let everybody know what ``entry`` has become; what makes it durable."""
        self._hold(entry)
        device = self._latest.device(entry.name)
        if device is not None and self.refusal(entry.name) and before not in SHUT_OUT:
            self.on_shut(device)
        elif device is not None and before in SHUT_OUT and not self.refusal(entry.name):
            self.on_admitted(device)
        told = {"state": entry.state.value, "reason": reason, "wiped": bool(entry.wiped_ns)}
        past = {"state": before} if before else None
        self._audit.record(who=by, action="device_state", on=f"device/{entry.name}", outcome="done", before=past, after=told)
        log.info("device_state", device=entry.name, before=before, after=entry.state.value, by=by, reason=reason)
        row = {**msgspec.structs.asdict(entry), "state": entry.state.value}
        step = {
            "device": entry.name,
            "before": before,
            "after": entry.state.value,
            "time_ns": entry.since_ns,
            "by": by,
            "reason": reason,
        }

        def write(db: Database) -> None:
            db.table("device").upsert(row, pk="name")
            db.table("device_step").insert(step)

        return write

    def _hold(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        if entry.state in SHUT_OUT:
            self._shut[entry.name] = SHUT_OUT[entry.state]
        else:
            self._shut.pop(entry.name, None)
        if entry.state in UNHEARD:
            self._come.set()


def _kill(db: Database, device: str, dead: Iterable[Token]) -> None:
    db.table("device_enrolment").delete_where("device = ?", [device])
    for token in dead:
        db.table("device_token").update(token.id, {"revoked_ns": token.revoked_ns})


def _replace_enrolments(db: Database, old: Iterable[str], row: dict[str, Any]) -> None:  # Any: columns
    for digest in old:
        db.table("device_enrolment").delete_where("digest = ?", [digest])
    db.table("device_enrolment").insert(row)


def _digest(secret: str) -> str:
    """Enrolment tokens have 256 bits of chance: a plain digest cannot be turned around."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _key_in(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key that signs device tokens, made where there is none. Raises OSError."""
    path = folder / KEY
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        draft = path.with_name(f".{KEY}.new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - the mode from the first byte on
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
