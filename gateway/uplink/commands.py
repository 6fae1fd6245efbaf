"""Commands that come over an uplink: judged by what can be known of a message, handed to the gate, answered on a topic of ours.

A message can lie for years in a broker, or come twice. So what is retained, has no stamp, is old, comes from the future, or comes at
all while the gateway's own clock cannot be believed, is refused; each refusal is counted, recorded as an outcome and answered like
one. The gate knows ids that came before, also before the last restart. What comes faster than a person or a recipe would write is
counted and no more: a flood must fill neither the journal nor the audit log.

Nothing here waits: a message is taken from the MQTT queue at once, and what becomes of it is told later. Answers wait for a
connection, a bounded number of them; the outcome records in the events lane are what is never lost.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
import structlog

from gateway.audit import Audit
from gateway.commands import Course, Gate, Origin, Stage
from gateway.commands.outcome import LONGEST
from gateway.commands.rules import LONGEST_ID
from gateway.config.commands import Commands
from gateway.config.model import Gateway, MqttUplink
from gateway.counters import Counters
from gateway.objections import Conflict
from gateway.readable import value as readable
from protocols.clock import Clock
from protocols.model import Command
from protocols.mqtt.client import Message, MqttSession, Rejected

log = structlog.get_logger("holdfast.uplink")

ANSWERS_KEPT: Final = 256
BURST: Final = 200
PER_S: Final = 50.0
"""So many commands at once, and so many in a second from then on, are judged; what comes faster is counted alone."""
RECORDED: Final = 100
RECORDED_PER_S: Final = 1.0
"""The same for refusals that are recorded and answered."""
LONGEST_BODY: Final = 64 * 1024
LONGEST_CORRELATION: Final = 1024
SAID: Final[dict[str, str]] = {
    "command-closed": "commands are not taken from this uplink: set commands on it",
    "command-retained": "it was retained by the broker: nobody knows when it was meant; publish commands without retain",
    "command-clock": "the gateway's clock is not synchronised, so that no deadline can be judged: see commands.clock",
    "command-unstamped": "it does not say when it was published, nor until when it holds",
}


_VERDICTS: Final[dict[Stage, Literal["done", "refused", "failed"]]] = {Stage.VERIFIED: "done", Stage.REFUSED: "refused"}


class Wished(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command as JSON."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    tag: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    value: bool | int | float | str
    deadline_ns: int | None = None
    """UTC, nanoseconds; it is not sent after it."""
    time_ns: int | None = None
    """UTC, nanoseconds; when it was published."""
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command, as it goes out."""

    topic: str
    payload: bytes
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class Return:
    """Where an answer goes."""

    topic: str
    correlation: bytes = b""


@dataclass(slots=True)
class Allowance:
    """A burst, and a rate from then on."""

    clock: Clock
    burst: float
    per_s: float
    left: float = 0.0
    since: float = float("-inf")

    def take(self) -> bool:
        now = self.clock.monotonic()
        self.left = min(self.burst, self.left + (now - self.since) * self.per_s)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Inbox:
    """The commands of one uplink, over all of its connections."""

    def __init__(
        self,
        uplink: MqttUplink,
        gateway: Gateway,
        gate: Gate,
        *,
        options: Callable[[], Commands],
        trusted: Callable[[], bool],
        clock: Clock,
        counters: Counters,
        audit: Audit | None = None,
    ) -> None:
        self.topic = uplink.commands_topic.replace("{group}", gateway.group).replace("{gateway}", gateway.name)
        """Where commands as JSON come; outcomes go to ``/outcomes`` below it."""
        self._uplink = uplink
        self._gate = gate
        self._options = options
        self._trusted = trusted
        self._clock = clock
        self._counters = counters
        self._audit = audit
        self._origin = Origin(kind="uplink", name=uplink.name)
        self._usual = Return(f"{self.topic}/outcomes")
        self._judged = Allowance(clock, BURST, PER_S)
        self._recorded = Allowance(clock, RECORDED, RECORDED_PER_S)
        self._answers: deque[Answer] = deque()
        self._some = asyncio.Event()
        self._said: set[str] = set()

    # ---- judging

    def objection(self, *, retained: bool, stamp_ns: int | None) -> tuple[str, str]:
        """Why a command that came now, and says that it was published at ``stamp_ns``, cannot be: a reason's name and words."""
        options, now_ns = self._options(), self._clock.time_ns()
        for reason, holds in (
            ("command-closed", not self._uplink.commands),
            ("command-retained", retained),
            ("command-clock", not self._trusted()),
            ("command-unstamped", stamp_ns is None),
        ):
            if holds:
                return reason, SAID[reason]
        assert stamp_ns is not None, "see above"
        age_s = (now_ns - stamp_ns) / 1e9
        if age_s > options.stale_after_s:
            return "command-stale", f"it is {age_s:.3g} s old, and {options.stale_after_s:g} s is the most"
        if -age_s > options.ahead_s:
            return "command-ahead", f"its stamp lies {-age_s:.3g} s in the future: one of the two clocks is wrong"
        return "", ""

    def sent_until(self, stamp_ns: int) -> int:
        """The deadline of a command that has none but its stamp."""
        return stamp_ns + int(self._options().stale_after_s * 1e9)

    # ---- taking

    def may_take(self) -> bool:
        """False where commands come faster than they are judged: this one is counted."""
        if self._judged.take():
            return True
        self._count("command-flood", self.topic)
        return False

    def take(self, command: Command, *, reason: str = "", back: Return | None = None) -> None:
        """Hand ``command``, against which nothing speaks so far, to the gate. It is answered at its end."""
        to = back or self._usual
        is_known = self._gate.knows(command.id)
        try:
            self._gate.take(command, self._origin, reason=reason, told=lambda course: self._ended(course, to))
        except Conflict as conflict:
            self.refuse(command, "command-conflict", conflict.detail, back)
            return
        if is_known:
            self._count("command-duplicate", f"{command.device}/{command.tag}")
            if self._recorded.take():
                self._gate.refuse(command, self._origin, "it came before under this id: it is not carried out again")

    def refuse(self, command: Command, reason: str, why: str, back: Return | None = None) -> None:
        """Count, record and answer what is refused before the gate is asked."""
        self._count(reason, f"{command.device}/{command.tag}: {why}")
        if not self._recorded.take():
            self._counters.dropped["command-refusal"] += 1
            return
        self._gate.refuse(command, self._origin, why)
        self._note(command, "refused", why)
        told = {
            "id": command.id,
            "device": command.device,
            "tag": command.tag,
            "value": _shown(command.value),
            "stage": "refused",
            "time_ns": self._clock.time_ns(),
            "detail": why,
        }
        self._post(back or self._usual, told)

    def take_json(self, message: Message) -> None:
        """A command as JSON (see :class:`Wished`), or what was sent instead of one."""
        if not self.may_take():
            return
        back = self._back(message)
        try:
            if len(message.payload) > LONGEST_BODY or message.left_out:
                raise ValueError(f"it is longer than {LONGEST_BODY} bytes")
            wished = msgspec.json.decode(message.payload, type=Wished)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            self.refuse(_nothing(message), "command-malformed", f"it is no command: {error}", back)
            return
        stamp_ns = wished.time_ns
        deadline_ns = wished.deadline_ns
        if deadline_ns is None and stamp_ns is not None:
            deadline_ns = self.sent_until(stamp_ns)
        now_ns = self._clock.time_ns()
        command = Command(id=wished.id, device=wished.device, tag=wished.tag, value=wished.value, deadline_ns=deadline_ns or 0)
        reason, why = self.objection(retained=message.retain, stamp_ns=now_ns if stamp_ns is None and deadline_ns is not None else stamp_ns)
        if not reason and command.deadline_ns > now_ns + self._options().longest_deadline_s * 1e9:
            reason, why = "command-ahead", f"its deadline lies more than {self._options().longest_deadline_s:g} s ahead"
        if reason:
            self.refuse(command, reason, why, back)
        else:
            self.take(command, reason=wished.reason, back=back)

    def _back(self, message: Message) -> Return:
        """Where the answer to ``message`` goes: its Response Topic where that lies below ours, for nobody may use us to publish
        elsewhere."""
        correlation = message.correlation[:LONGEST_CORRELATION]
        asked = message.response_topic
        if asked and asked.startswith(f"{self.topic}/") and not set(asked) & set("+#\0") and len(asked) <= 1024:
            return Return(asked, correlation)
        if asked:
            self._count("response-topic-foreign", asked)
        return Return(self._usual.topic, correlation)

    # ---- answering

    async def tell(self, mqtt: MqttSession) -> None:
        """Publish answers as they come, at QoS 1, until cancelled or the connection is lost."""
        while True:
            while self._answers:
                answer = self._answers[0]
                try:
                    await (await mqtt.publish1(answer.topic, answer.payload, correlation=answer.correlation))
                except Rejected as rejection:
                    self._count("outcome-rejected", str(rejection))
                except ValueError as error:  # a topic that is none
                    self._count("outcome-rejected", str(error))
                if self._answers and self._answers[0] is answer:
                    self._answers.popleft()
            self._some.clear()
            await self._some.wait()

    def _ended(self, course: Course, back: Return) -> None:
        command = course.command
        told = {
            "id": command.id,
            "device": command.device,
            "tag": command.tag,
            "value": _shown(command.value),
            "stage": course.stage.value,
            "time_ns": course.times[course.stage],
            "times_ns": course.times,
            "detail": course.detail[:LONGEST],
            "read_back": readable(course.read_back),
            "by_device": course.by_device,
        }
        self._note(command, _VERDICTS.get(course.stage, "failed"), course.detail)
        self._post(back, told)

    def _post(self, back: Return, told: dict[str, object]) -> None:
        if len(self._answers) >= ANSWERS_KEPT:
            self._answers.popleft()
            self._counters.dropped["command-answer"] += 1
        self._answers.append(Answer(back.topic, msgspec.json.encode(told), back.correlation))
        self._some.set()

    def _note(self, command: Command, verdict: Literal["done", "refused", "failed"], detail: str) -> None:
        if self._audit is not None:
            who, on = f"uplink:{self._uplink.name}", f"{command.device}/{command.tag}"
            self._audit.record(who=who, action="command", outcome=verdict, on=on, detail=detail, after=_shown(command.value))

    def _count(self, reason: str, what: str) -> None:
        self._counters.errors[reason] += 1
        if reason not in self._said:
            self._said.add(reason)
            log.warning("command_refused", uplink=self._uplink.name, reason=reason, what=what[:300])


def id_of(message: Message, at: int) -> str:
    """The id of the ``at``-th wish in a message that brings none: the same bytes are the same wish."""
    return f"{hashlib.sha256(message.topic.encode() + b' ' + message.payload).hexdigest()[:32]}-{at}"


def _nothing(message: Message) -> Command:
    return Command(id=id_of(message, 0), device="", tag="", value=message.payload[:80].decode(errors="replace"), deadline_ns=0)


def _shown(value: bool | int | float | str | bytes) -> object:
    """A value for JSON: whole numbers without end are not spelled out."""
    return "a number of many digits" if isinstance(value, int) and abs(value) > 2**64 else readable(value)
