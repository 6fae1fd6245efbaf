"""The MQTT driver: one connection to a broker, on which many devices publish. Wiring.

The plan is computed once for an options object and kept as long as that object lives, so that batches carry the very devices
that ``devices`` gave. The client id is the same after every restart, so that the broker keeps what is published meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from protocols.clock import Clock, SystemClock
from protocols.contract import DriverError, ProbeReport, Problem, Unreachable
from protocols.model import Batch, Device
from protocols.mqtt.check import check
from protocols.mqtt.client import HEAD_BYTES, Listening, MqttSession, connect
from protocols.mqtt.config import Mqtt
from protocols.mqtt.plan import Plan, make_plan
from protocols.mqtt.session import Session
from protocols.secret import SecretMissing

MACHINE_ID: Final = Path("/etc/machine-id")
PROBE_S: Final = 3.0
"""How long a probe listens for messages."""
INBOX_BYTES: Final = 8 * 1024**2
RECEIVE_MAXIMUM: Final = 1000


class MqttDriver:
    """Devices that publish to a broker. See the driver contract."""

    name = "mqtt"
    options: type[msgspec.Struct] = Mqtt

    def __init__(self) -> None:
        self._plans: dict[int, tuple[weakref.ref[Mqtt], Plan]] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; a Mqtt
        return check(options)

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return [plan.device for plan in self._plan(options).devices]

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[Session]:  # Any: as above
        plan = self._plan(options)
        name = options.client_id or client_id(options)
        async with connect(
            options,
            options,
            client_id=name,
            clean=options.session_expiry_s == 0,
            what="connection",
            listening=_listening(plan, options.session_expiry_s, options.hold_messages),
        ) as mqtt:
            session = Session(options, plan, mqtt, clock)
            await session.subscribe()
            care = asyncio.get_running_loop().create_task(session.look_after())
            care.add_done_callback(lambda task: _ended(task, mqtt))
            try:
                yield session
            finally:
                care.cancel()
                await asyncio.gather(care, return_exceptions=True)

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        """Connects beside a running gateway, under a name of its own, and listens for a moment."""
        plan = make_plan(options)
        name = f"{(options.client_id or client_id(options))[:200]}-probe"
        try:
            async with connect(options, options, client_id=name, what="connection", listening=_listening(plan, 0, 0)) as mqtt:
                session = Session(options, plan, mqtt, SystemClock())
                refused = await session.subscribe()
                heard: set[str] = set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S):
                        await _listen(session, heard, len(plan.devices))
                return _report(options, plan, refused, heard, session.findings)
        except (DriverError, SecretMissing) as error:
            return ProbeReport(ok=False, findings=(str(error),))

    def _plan(self, options: Mqtt) -> Plan:
        """The plan of this very object; equal objects have plans of their own."""
        key = id(options)
        if key not in self._plans:
            forget = weakref.ref(options, lambda _: self._plans.pop(key, None))
            self._plans[key] = (forget, make_plan(options))
        return self._plans[key][1]


def client_id(options: Mqtt) -> str:
    """A name that is this machine's and this connection's, the same after every restart, and hard to guess from outside."""
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    digest = hashlib.sha256(f"{machine}\0holdfast\0{options.name}\0{options.host}\0{options.port}".encode()).hexdigest()
    return f"holdfast-{digest[:13]}"  # 23 characters: every broker takes so many (MQTT 3.1.1, 3.1.3.1)


def _listening(plan: Plan, expiry_s: int, hold_messages: int) -> Listening:
    return Listening(
        expiry_s=expiry_s,
        receive_maximum=min(65535, max(RECEIVE_MAXIMUM, 2 * hold_messages)),
        inbox_bytes=INBOX_BYTES,
        longest_payload=max(plan.longest_payload, HEAD_BYTES),
    )


async def _listen(session: Session, heard: set[str], enough: int) -> None:
    async for batch in session.batches():
        if _has_value(batch):
            heard.add(batch.device.name)
            if len(heard) >= enough:
                return


def _has_value(batch: Batch) -> bool:
    return not batch.lost and bool((batch.quality < 0x80000000).any())


def _report(options: Mqtt, plan: Plan, refused: list[str], heard: set[str], findings: list[str]) -> ProbeReport:
    accepted = len(plan.filters) - len(refused)
    silent = [each.device.name for each in plan.devices if each.device.name not in heard]
    said = [f"{options.host}:{options.port}: the broker answers and took {accepted} of {len(plan.filters)} subscriptions"]
    said += findings
    if heard:
        said.append(f"heard within {PROBE_S:g} s: {', '.join(sorted(heard)[:20])}")
    if silent:
        said.append(
            f"not heard within {PROBE_S:g} s: {', '.join(silent[:20])}{' and more' if len(silent) > 20 else ''}: they may publish rarely; "
            "a broker's access list may also keep their messages back without a word"
        )
    return ProbeReport(ok=not refused, findings=tuple(said))


def _ended(care: asyncio.Task[None], mqtt: MqttSession) -> None:
    """Without somebody who looks after it a session is given up."""
    error = None if care.cancelled() else care.exception()
    if error is not None:
        mqtt.abandon(error if isinstance(error, DriverError) else Unreachable(f"{mqtt.where}: this is a defect, report it: {error!r}"))


MQTT = MqttDriver()
