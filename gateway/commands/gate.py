"""The one gate through which every command goes to the field, whoever asks: API, uplinks, faces, shadow.

What may not be is refused here and never sent; what was taken under an id is not carried out again, also after a restart; the
commands of one device go out one after the other, in the order in which they were taken, and ahead of every scan. Each end is a
record in the events lane, and says no more than is known:

- *refused*, *expired*: nothing was sent.
- *verified*, *mismatch*: the device took it, and this is what a look at the tag shows.
- *failed*: it did not come about, and ``detail`` says whether nothing was sent, or the device said no, or nobody can say.

A command that ``waits`` stays in the queue while its connection is down, until its deadline, and is tried again where that is safe:
when nothing was sent, or when the tag only takes the value that it is told. After a request that nobody answered the gateway looks
first: what a later scan reads decides whether it is sent again. Whoever stops waiting for a command does not end it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import structlog

from gateway.commands.course import ENDS, Course, Stage, course_of, is_same
from gateway.commands.lockout import LockOut, covering
from gateway.commands.memory import Memory
from gateway.commands.origin import Origin, origin_of
from gateway.commands.outcome import batch_of
from gateway.commands.rules import LONGEST_ID, Past, may_repeat, misfit, objection, tag_of
from gateway.config.commands import Commands
from gateway.connections import Connection
from gateway.objections import Conflict, NotThere
from gateway.tasks import cancel
from protocols.clock import Clock
from protocols.contract import DriverError, Session
from protocols.model import SEVERITY_MASK, Batch, Command, Device, Outcome, OutcomeState, Quality
from protocols.steps import Step, Telling, telling

log = structlog.get_logger("holdfast.commands")

REMEMBERED: Final = 5_000
"""Commands that are remembered, so that the same id is not carried out twice."""
MOST_AT_ONCE: Final = 64
"""Commands of one connection that wait or are on their way at the same time; more are refused."""
MOST_OPEN: Final = 1024
"""The same for the whole gateway."""
LOOK_EVERY_S: Final = 0.05
"""How often is looked whether a connection is back, or a scan has read the tag."""
BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
UNKNOWN: Final = "nobody can say what became of it"

Find = Callable[[str], tuple[Connection, Device] | None]
"""The running connection that has the device of this name, and the device."""
Seen = Callable[[Device], Sequence[Batch]]


def _nothing(device: Device) -> Sequence[Batch]:
    return ()


class Gate:
    """``find`` and ``record`` are all it needs to carry out commands; without ``memory`` it forgets them at its end."""

    def __init__(
        self,
        find: Find,
        record: Callable[[Batch], None],
        clock: Clock,
        *,
        memory: Memory | None = None,
        options: Callable[[], Commands] = Commands,
        seen: Seen = _nothing,
    ) -> None:
        self._find = find
        self._record = record
        self._clock = clock
        self._memory = memory
        self._options = options
        self._seen = seen
        """The last values of a device, as batches."""
        self._courses: OrderedDict[str, Course] = OrderedDict()
        self._numbers = 0
        self._queues: dict[str, deque[Course]] = {}
        """By device; the first is on its way. A device without commands has none."""
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._open: Counter[str] = Counter()
        """Commands by connection."""
        self._sent_ns: OrderedDict[tuple[str, str], int] = OrderedDict()
        """When a command was last sent to a tag; by device and tag."""
        self._lock_outs: dict[str, LockOut] = {}
        self._is_closed = False
        self.ended: Counter[str] = Counter()
        """How many commands ended how, since the start."""

    # ------------------------------------------------------------------------------------------ life

    async def begin(self) -> None:
        """Remember what was before the last end, and say of each command that was under way then what is known of it."""
        if self._memory is None:
            return
        self._lock_outs = {one.id: one for one in await self._memory.lock_outs()}
        for kept in await self._memory.commands():
            course = self._remember(course_of(kept, self._next_number()))
            if not course.is_over():
                why = f"the gateway ended while it was on its way: {UNKNOWN}" if course.handed else "the gateway ended: nothing was sent"
                self._end(course, Stage.FAILED, why)
        if self._lock_outs:
            log.warning("locked_out", what=[str(one) for one in self._lock_outs.values()])

    async def close(self) -> None:
        """Carry out nothing more: what is on its way or waits has failed."""
        self._is_closed = True
        for device, worker in list(self._workers.items()):
            await cancel(worker)
            for course in self._queues.pop(device, ()):
                known = UNKNOWN if course.stage in (Stage.SENT, Stage.ACKNOWLEDGED) else "nothing was sent"
                self._end(course, Stage.FAILED, f"the gateway stopped while it was on its way: {known}")
        self._workers.clear()
        await asyncio.gather(*self._keeping)

    # ------------------------------------------------------------------------------------------ asking

    async def carry_out(self, command: Command, *, source: Origin | str, reason: str = "") -> Outcome:
        """Have ``command`` carried out now or not at all; its outcome, which is recorded. ``source`` says who asked. Never raises.

        The same id again gets the first one's outcome, also while that one is still on its way.
        """
        origin = source if isinstance(source, Origin) else origin_of(source)
        try:
            course = self.take(command, origin, reason=reason, waits=False)
        except Conflict as conflict:
            return Outcome(command=command.id, state=OutcomeState.REFUSED, time_ns=self._clock.time_ns(), detail=conflict.detail)
        await course.ended.wait()
        return course.outcome

    async def submit(self, command: Command, origin: Origin, *, reason: str = "", waits: bool = True) -> Course:
        """Take ``command``; its course, once a restart cannot make the gateway forget it. Raises Conflict, as :meth:`take`."""
        course = self.take(command, origin, reason=reason, waits=waits)
        if not course.is_over():
            await asyncio.sleep(0)  # it may be on its way at once, and is then kept once
            await self._keep(course)
        return course

    def take(
        self, command: Command, origin: Origin, *, reason: str = "", waits: bool = True, told: Callable[[Course], None] | None = None
    ) -> Course:
        """Take ``command``, or refuse it: its course. ``told`` is called at its end. Never waits.

        The same id again gives the first one's course. Raises Conflict where the id stands for another command.
        """
        known = self._courses.get(command.id)
        if known is not None:
            if not is_same(known.command, command):
                raise Conflict(f"the id {command.id[:80]} stands for another command", "give each command an id of its own")
            _tell(known, told)
            return known
        course = Course(command, origin, self._next_number(), reason=reason, waits=waits)
        course.enter(Stage.ACCEPTED, self._clock.time_ns())
        _tell(course, told)
        self._remember(course)
        if why := self._objection(course):
            self._end(course, Stage.REFUSED, why)
        elif self._clock.time_ns() >= command.deadline_ns:
            self._end(course, Stage.EXPIRED, "the deadline had passed before it could be sent")
        else:
            self._enqueue(course)
        return course

    def refuse(self, command: Command, origin: Origin, why: str) -> None:
        """Record that ``command`` was refused before anything else was asked of it. Its id stays free."""
        time_ns = self._clock.time_ns()
        outcome = Outcome(command=command.id, state=OutcomeState.REFUSED, time_ns=time_ns, detail=why)
        self._record(batch_of(command, outcome, str(origin)))
        self._say(command, origin, outcome)

    def cancel(self, identity: str, who: str) -> Course:
        """Take back a command that was not sent yet. Raises NotThere; Conflict where it was sent, or is over."""
        course = self.course(identity)
        queue = self._queues.get(course.command.device, deque())
        if course.is_over() or course.stage is not Stage.QUEUED or course.handed:
            raise Conflict(
                f"command {identity[:80]} is {course.stage}: only what is queued can be taken back", "write the value that is right"
            )
        queue.remove(course)
        self._close_course(course, Stage.REFUSED, f"taken back by {who} before it was sent")
        return course

    def course(self, identity: str) -> Course:
        """Raises NotThere."""
        course = self._courses.get(identity)
        if course is None:
            raise NotThere(f"no command has the id {identity[:80]!r}", "GET /api/v1/commands lists those that are remembered")
        return course

    def knows(self, identity: str) -> bool:
        """Whether a command came under this id before."""
        return identity in self._courses

    def courses(self) -> Iterator[Course]:
        """All that are remembered, the newest first."""
        return reversed(self._courses.values())

    # ------------------------------------------------------------------------------------------ lock-out

    def lock_outs(self) -> list[LockOut]:
        """Those that hold now."""
        now_ns = self._clock.time_ns()
        return [one for one in self._lock_outs.values() if one.holds(now_ns)]

    async def lock_out(self, one: LockOut) -> None:
        """Let nobody write to ``one`` from now on, what is queued included. Raises Unavailable where it would not survive a restart."""
        self._lock_outs[one.id] = one
        log.warning("locked_out", what=str(one))
        if self._memory is not None:
            await self._memory.set(one)

    async def lift(self, identity: str, who: str) -> LockOut:
        """Raises NotThere, Unavailable."""
        one = self._lock_outs.get(identity)
        if one is None:
            raise NotThere(f"no lock-out is called {identity[:80]!r}", "GET /api/v1/lock-outs lists them")
        if self._memory is not None:
            await self._memory.lift(identity)
        self._lock_outs.pop(identity, None)
        log.warning("lock_out_lifted", what=str(one), by=who)
        return one

    # ------------------------------------------------------------------------------------------ taking

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _remember(self, course: Course) -> Course:
        self._courses[course.command.id] = course
        while len(self._courses) > REMEMBERED and next(iter(self._courses.values())).is_over():
            self._courses.popitem(last=False)
        return course

    def _objection(self, course: Course) -> str:
        """Why it cannot be, whatever the field says; empty if it may go."""
        command = course.command
        if self._is_closed:
            return "the gateway stops"
        found = self._find(command.device)
        if found is None:
            return f"no device is called {command.device[:LONGEST_ID]}"
        connection, device = found
        now_ns = self._clock.time_ns()
        return (
            misfit(command, device)
            or self._locked(connection, device, now_ns)
            or objection(self._options(), command, course.origin, course.reason, self._past(device, command.tag), now_ns)
            or self._too_many(connection.status.name)
        )

    def _locked(self, connection: Connection, device: Device, now_ns: int) -> str:
        shut_out = connection.admission.refusal(device.name) if connection.admission is not None else ""
        if shut_out:
            return f"nothing is written to {device.name}: {shut_out}"
        one = covering(self._lock_outs.values(), connection.status.name, device.name, now_ns)
        return f"{one}: nobody writes until it is lifted on site" if one is not None else ""

    def _too_many(self, name: str) -> str:
        if self._open[name] >= MOST_AT_ONCE:
            return f"connection {name} has {MOST_AT_ONCE} commands on their way: ask again later"
        return f"the gateway has {MOST_OPEN} commands on their way: ask again later" if self._open.total() >= MOST_OPEN else ""

    def _past(self, device: Device, tag: str) -> Past:
        read = self._read(device, tag, after_ns=0)
        number = float(read) if isinstance(read, int | float) and not isinstance(read, bool) and math.isfinite(read) else None
        return Past(number, self._sent_ns.get((device.name, tag), 0))

    def _read(self, device: Device, tag: str, *, after_ns: int) -> bool | int | float | str | bytes | None:
        """The last good value of a tag, if it is newer than ``after_ns``."""
        for batch in self._seen(device):
            for at, slot in enumerate(batch.tag.tolist()):
                if batch.device.tags[slot].name == tag:
                    is_good = int(batch.quality[at]) & SEVERITY_MASK < Quality.BAD
                    value = batch.value[at] if batch.value.dtype == object else batch.value[at].item()
                    return value if is_good and int(batch.time_ns[at]) > after_ns else None
        return None

    def _enqueue(self, course: Course) -> None:
        found = self._find(course.command.device)
        assert found is not None, "there was no objection"
        self._open[found[0].status.name] += 1
        course.told.append(partial(self._leave, found[0].status.name))
        course.enter(Stage.QUEUED, self._clock.time_ns())
        device = course.command.device
        self._queues.setdefault(device, deque()).append(course)
        if device not in self._workers:
            self._workers[device] = asyncio.create_task(self._work(device), name=f"commands {device}")

    def _leave(self, name: str, course: Course) -> None:
        self._open[name] -= 1

    # ------------------------------------------------------------------------------------------ carrying out

    async def _work(self, device: str) -> None:
        """Carry out the commands of one device, until none is left."""
        queue = self._queues[device]
        while queue:
            course = queue[0]
            stage, detail = await self._go(course)
            if queue and queue[0] is course:
                queue.popleft()
            self._close_course(course, stage, detail)
        del self._queues[device], self._workers[device]

    async def _go(self, course: Course) -> tuple[Stage, str]:
        """Try until there is an end; its kind, and words."""
        while True:
            self._expire_those_behind(course)
            found = await self._ready(course)
            if course.is_over():
                return course.stage, course.detail
            if isinstance(found, str):
                return Stage.REFUSED if found else Stage.EXPIRED, found or self._too_late(course)
            connection, device = found
            session = connection.session
            if session is None:
                why = connection.status.trouble or "it is connecting"
                return Stage.FAILED, f"connection {connection.status.name} is down, nothing was sent: {why}"
            end = await self._attempt(course, session, device, connection.status.name)
            if end is not None:
                return end
            if not await self._rest(course):
                return self._given_up(course)

    async def _ready(self, course: Course) -> tuple[Connection, Device] | str:
        """The connection when it may be sent; else why it is refused, or an empty text where its time has passed."""
        while True:
            found = self._find(course.command.device)
            if found is None:
                return f"no device is called {course.command.device} any more"
            now_ns = self._clock.time_ns()
            if locked := self._locked(*found, now_ns):
                return locked
            if now_ns >= course.command.deadline_ns:
                return ""
            if found[0].session is not None or not course.waits or course.is_over():
                if found[0].session is not None and not course.handed:
                    course.handed = True
                    await self._keep(course)
                    continue  # the disk may have taken its time: look again
                return found
            await self._pause(LOOK_EVERY_S)
            self._expire_those_behind(course)
            if course.is_over():
                return found

    def _too_late(self, course: Course) -> str:
        if course.attempts:
            return course.detail or "the deadline passed"
        return "the deadline had passed before it could be sent"

    def _expire_those_behind(self, first: Course) -> None:
        now_ns = self._clock.time_ns()
        queue = self._queues.get(first.command.device, deque())
        for course in [one for one in queue if one is not first and now_ns >= one.command.deadline_ns]:
            queue.remove(course)
            self._close_course(course, Stage.EXPIRED, "the deadline had passed before it could be sent")

    async def _attempt(self, course: Course, session: Session, device: Device, name: str) -> tuple[Stage, str] | None:
        """Have the driver write it once. None where it may be tried again; ``course.detail`` says why it has to be."""
        command, steps = course.command, set[Step]()
        course.attempts += 1

        def told(step: Step) -> None:
            steps.add(step)
            course.enter(Stage(step.value), self._clock.time_ns())
            self._note_sent(command)

        if not isinstance(session, Telling):
            told(Step.SENT)
        with telling(told):
            outcome = await self._written(course, session, name)
        course.read_back, course.detail = outcome.read_back, outcome.detail
        if outcome.state is OutcomeState.REFUSED and Step.SENT in steps and isinstance(session, Telling):
            course.by_device = True
            return Stage.FAILED, outcome.detail
        if outcome.state is not OutcomeState.FAILED:
            if outcome.state is OutcomeState.REFUSED:
                course.times.pop(Stage.SENT, None)  # said above for a driver that does not tell
            return Stage(outcome.state.value), outcome.detail
        if not course.waits:
            return Stage.FAILED, outcome.detail
        return await self._after_failure(course, device, steps)

    async def _written(self, course: Course, session: Session, name: str) -> Outcome:
        command = course.command
        try:
            (outcome,) = await session.write([command])
        except DriverError as error:
            detail = f"the connection was lost: {error}"
        except Exception as error:  # the driver's bug must end neither the gateway nor whoever asked
            log.exception("write_failed", connection=name)
            detail = f"the driver failed ({type(error).__name__}): {UNKNOWN}"
        else:
            return outcome
        return Outcome(command=command.id, state=OutcomeState.FAILED, time_ns=self._clock.time_ns(), detail=detail)

    async def _after_failure(self, course: Course, device: Device, steps: set[Step]) -> tuple[Stage, str] | None:
        """What is known after an attempt that brought no answer. None where it may be sent again."""
        if Step.SENT not in steps:
            course.enter(Stage.QUEUED, self._clock.time_ns())
            return None
        seen = await self._look(course, device)
        if seen is None:
            return Stage.FAILED, course.detail
        course.read_back = seen
        if _equals(course.command.value, seen):
            return Stage.VERIFIED, f"{course.detail}; a later scan reads it"
        if Step.ACKNOWLEDGED in steps:
            return Stage.MISMATCH, f"{course.detail}; a later scan reads {seen!r:.60}"
        tag = tag_of(device, course.command.tag)
        if tag is None or not may_repeat(self._options(), course.command, tag):
            return Stage.FAILED, f"{course.detail}; a later scan reads {seen!r:.60}, and it is not sent twice"
        course.detail = f"{course.detail}; a later scan reads {seen!r:.60}"
        return None

    async def _look(self, course: Course, device: Device) -> bool | int | float | str | bytes | None:
        """What the next scans read of the tag, until the deadline; the value that is wanted as soon as it is seen."""
        sent_ns, wanted, seen = course.times[Stage.SENT], course.command.value, None
        looks = 0
        while self._clock.time_ns() < course.command.deadline_ns:
            now = self._read(device, course.command.tag, after_ns=sent_ns)
            if now is not None:
                seen, sent_ns, looks = now, self._clock.time_ns(), looks + 1
                if looks == 2 or _equals(wanted, seen):  # the first scan may have been on its way before the device took it
                    return seen
            await self._pause(LOOK_EVERY_S)
        return seen

    async def _rest(self, course: Course) -> bool:
        """Wait before the next attempt. False where the deadline comes first."""
        wait_s = BACK_OFF_S[min(course.attempts, len(BACK_OFF_S)) - 1]
        left_s = (course.command.deadline_ns - self._clock.time_ns()) / 1e9
        await self._pause(max(0.0, min(wait_s, left_s)))
        return wait_s < left_s

    def _given_up(self, course: Course) -> tuple[Stage, str]:
        tried = f"{course.attempts} attempts until its deadline" if course.attempts > 1 else "its deadline came before another attempt"
        return Stage.FAILED, f"{course.detail} ({tried})"

    async def _pause(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + seconds)

    def _note_sent(self, command: Command) -> None:
        self._sent_ns[command.device, command.tag] = self._clock.time_ns()
        self._sent_ns.move_to_end((command.device, command.tag))
        if len(self._sent_ns) > REMEMBERED:
            self._sent_ns.popitem(last=False)

    # ------------------------------------------------------------------------------------------ ends

    def _close_course(self, course: Course, stage: Stage, detail: str) -> None:
        if not course.is_over():
            self._end(course, stage, detail)

    def _end(self, course: Course, stage: Stage, detail: str) -> None:
        """The end of a course: recorded, told, and kept if the course was."""
        assert stage in ENDS
        was_taken = Stage.QUEUED in course.times
        course.detail = detail
        course.enter(stage, self._clock.time_ns())
        outcome = course.outcome
        self._record(batch_of(course.command, outcome, str(course.origin)))
        self._say(course.command, course.origin, outcome)
        course.ended.set()
        for told in course.told:
            told(course)
        course.told.clear()
        if was_taken and self._memory is not None and course.origin.kind != "face":
            task = asyncio.create_task(self._memory.keep(course), name="keep command")
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    async def _keep(self, course: Course) -> None:
        if self._memory is not None and course.origin.kind != "face":
            await self._memory.keep(course)

    def _say(self, command: Command, origin: Origin, outcome: Outcome) -> None:
        said = {
            "id": command.id[:LONGEST_ID],
            "source": str(origin),
            "device": command.device[:LONGEST_ID],
            "tag": command.tag[:LONGEST_ID],
        }
        self.ended[outcome.state.value] += 1
        log.info("command", **said, state=outcome.state.value, detail=outcome.detail)


def _tell(course: Course, told: Callable[[Course], None] | None) -> None:
    if told is None:
        return
    if course.is_over():
        told(course)
    else:
        course.told.append(told)


def _equals(wanted: object, seen: object) -> bool:
    """Whether a scan reads what was written, but for the rounding of a float."""
    if isinstance(wanted, int | float) and isinstance(seen, int | float):
        return math.isclose(wanted, seen, rel_tol=1e-6, abs_tol=1e-9)
    return wanted == seen
