"""Apply, confirm, go back: one change at a time, durable before it happens, and undone by itself where nobody confirms it.

``apply`` reads and judges the document, plans it, builds what differs beside what runs (plans, secrets, TLS: what fails here
changes nothing), keeps it as a revision on trial, swaps what differs, and watches whether what was up comes up again. A document
that needs no confirmation is on trial too until its swap is done: a gateway that dies in between goes back in the end.

While a document is on trial nothing is given up that going back needs: the cursors of uplinks that it lacks stay, and the journal
keeps the bounds of what was confirmed. Going back is a revision of its own, by the author ``gateway``.

Where the state cannot be kept (see ``gateway.state``) the file runs, and changes live until the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog

from gateway import config, links
from gateway.audit import Audit
from gateway.config import model
from gateway.config.document import MAX_BYTES
from gateway.config.drivers import installed
from gateway.objections import Conflict, NotThere, Objection, Outdated, Unavailable, Unfit
from gateway.revisions import decide
from gateway.revisions import plan as plans
from gateway.revisions.decide import Deadline, Known
from gateway.revisions.document import Document, digest, read, templates_of
from gateway.revisions.document import known as known_document
from gateway.revisions.store import Draft, Store
from gateway.state import State
from holdfast.shapes.revisions import Applied, Configuration, Drift, Plan, Revision, RevisionDetail, Trial, Worse
from protocols.clock import Clock

log = structlog.get_logger("holdfast.revisions")

SWAP_S: Final = 60.0
"""A swap that takes longer has failed."""
WATCH_S: Final = 20.0
"""How long what was up has to come up again, before it is told."""
LOOK_S: Final = 0.1
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_Origin = Literal["file", "api", "console", "gateway"]
_MOVES: Final = "change it in the file that the gateway was started with, and restart it"


class StartAnew(Exception):
    """The running parts could not be brought back: the gateway has to start again, into what was confirmed."""


class SwapFailed(Exception):
    """A document could not be swapped in. The text says why."""


class Parts(Protocol):
    """What runs, as far as changing it goes."""

    @property
    def site(self) -> model.Site: ...

    @property
    def statuses(self) -> Sequence[links.Status]: ...

    @property
    def audit(self) -> Audit: ...

    async def build(self, site: model.Site, *, look: bool) -> Any:  # Any: the parts' own; given back to swap
        """Make what differs; with ``look``, read its secrets and certificates first. Raises Unfit."""

    async def swap(self, built: Any) -> None:  # Any: as build gave it
        """Run it, but for the API."""

    async def swap_api(self) -> None:
        """Have the API be as the site says."""

    def forget_uplinks(self, keep: Collection[str]) -> None:
        """Nothing waits any more for uplinks but these."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, and which way it came."""

    author: str
    origin: _Origin


GATEWAY: Final = Who("gateway", "gateway")
FILE: Final = Who("file", "file")


class Revisions:
    """The revisions of one gateway. ``choose`` and ``settle`` at its start, ``run`` once its parts do."""

    def __init__(self, state: State, clock: Clock, base: Path, file: Path | None = None, *, boot: str | None = None) -> None:
        """``file`` is the document that the gateway was started with, ``base`` the folder that its paths start from."""
        self._store = Store(state)
        self._clock, self._base, self._file = clock, base, file
        self._boot = _boot() if boot is None else boot
        self._turn = asyncio.Lock()
        """Of whoever changes what runs."""
        self._verdict = asyncio.Lock()
        """Of whoever decides whether a trial stays or goes."""
        self._swapping = False
        self._idle: set[asyncio.Task[None]] = set()
        """Tasks that wait or look, and change nothing until they have the turn."""
        self._known = Known()
        self._running: Document | None = None
        self._number = 0
        self._start = decide.Start(run="file")
        self._from_file: Document | None = None
        self._confirmed: Document | None = None
        self._parts: Parts | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._timer: asyncio.Task[None] | None = None
        self.last_drift = Drift(state="none")
        """As it was when it was last looked at."""

    # At a start

    async def choose(self, site: model.Site, raw: bytes | None, *, usable: bool = True) -> tuple[model.Site, model.JournalOptions]:
        """What to run, and how to open the journal. ``site`` is what the file says, ``raw`` its text; where the file is not
        ``usable`` they are those of what was confirmed. Writes nothing.

        The journal's options are those of what was confirmed: a document on trial drops no record for good.
        """
        self._from_file = await asyncio.to_thread(known_document, site, raw, self._base)
        file = self._from_file.identity if usable else ""
        try:
            self._known = await self._store.known()
            self._start = decide.start(self._known, file, self._boot, self._clock.monotonic())
            if self._known.confirmed and self._start.run != "file":
                self._confirmed = await self._stored(self._known.confirmed)
            if self._start.run == "trial":
                self._running = await self._stored(self._known.trial)
        except Unavailable as error:
            log.error("revisions_not_read", trouble=error.detail, advice="the file runs")
            self._known, self._start = Known(), decide.Start(run="file")
        if self._start.run == "trial" and self._running is None:
            self._start = decide.Start(run="confirmed" if self._confirmed else "file", over="its document can no longer be used")
        if self._start.run == "confirmed" and self._confirmed is None:
            log.error("revision_not_usable", revision=self._known.confirmed, advice="the file runs: look at what it says, and apply anew")
            self._start = decide.Start(run="file", over=self._start.over)
        if self._start.run != "trial":
            self._running = self._confirmed if self._start.run == "confirmed" else self._from_file
        assert self._running is not None
        options = (self._confirmed or self._running).site.journal
        return self._running.site, msgspec.structs.replace(options, path=site.journal.path)

    async def settle(self) -> model.Site:
        """Write down what :meth:`choose` decided: from here on it is so, whatever happens. Gives what runs."""
        try:
            await self._settle()
        except Unavailable as error:
            log.error("revisions_not_kept", trouble=error.detail, advice="make room; until then changes are lost with the next start")
            if self._start.run == "trial":  # nobody could count its starts, or say that it was confirmed
                self._running, self._start = self._confirmed or self._from_file, decide.Start(run="confirmed")
                self._known = msgspec.structs.replace(self._known, trial=0, deadline=None)
        assert self._running is not None
        return self._running.site

    async def _settle(self) -> None:
        known, started = self._known, self._start
        assert self._running is not None
        assert self._from_file is not None
        ended = (known.trial, f"{started.over}; by gateway") if known.trial and started.over else None
        if started.run == "file":
            before = await self._stored(known.confirmed) if known.confirmed else None
            reason = "the file was changed" if known.confirmed else "the first start"
            draft = await self._draft(self._running, FILE, reason, before, known.confirmed)
            await self._add(draft, None, self._from_file.identity, ended)
        elif ended is not None:
            log.error("revision_reverted", revision=known.trial, reason=started.over, confirmed=known.confirmed)
            await self._add_return(ended, started.over)
        elif started.run == "trial":
            assert known.deadline is not None
            deadline = msgspec.structs.replace(known.deadline, starts=known.deadline.starts + 1)
            await self._store.started(deadline)
            self._known, self._number = msgspec.structs.replace(known, deadline=deadline), known.trial
            log.warning("revision_on_trial", revision=known.trial, remaining_s=round(self._remaining_s(), 1))
        else:
            self._number = known.confirmed

    def run(self, parts: Parts, tasks: asyncio.TaskGroup) -> None:
        """The parts run ``running``: from now on it can be changed, and a trial's time goes on."""
        self._parts, self._tasks = parts, tasks
        self._forget()
        deadline = self._known.deadline
        if deadline is not None and deadline.confirms_itself:
            self._look(self._confirm_started(self._known.trial), "revisions")
        elif deadline is not None:
            self._set_timer()
        self._look(self._first_drift(), "drift")

    async def stop(self) -> None:
        """No change begins any more; one that runs is waited for. A trial's time goes on at the next start."""
        self._stop_timer()
        for task in self._idle:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWAP_S):
                await self._turn.acquire()

    def _look(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:  # Any: what a coroutine takes is asyncio's own
        assert self._tasks is not None
        task = self._tasks.create_task(work, name=name)
        self._idle.add(task)
        task.add_done_callback(self._idle.discard)
        return task

    async def _confirm_started(self, number: int) -> None:
        async with self._verdict:
            if self._known.trial == number:
                await self._stay(number, "it runs", GATEWAY)

    async def _first_drift(self) -> None:
        drift = await self.drift()
        if drift.state == "differs":
            log.warning("drift", file=drift.file, running=drift.running, differences=len(drift.changes) + drift.more_changes)

    # Questions

    @property
    def number(self) -> int:
        """Of the revision that runs."""
        return self._number

    @property
    def on_trial(self) -> bool:
        return self._known.trial != 0

    async def plan(self, raw: bytes) -> Plan:
        """What applying ``raw`` would do. Raises Unfit, TooLarge."""
        document = await asyncio.to_thread(read, raw, self._base)
        self._must_keep_places(document)
        return await asyncio.to_thread(plans.plan, self._running, self._number, document, installed())

    async def history(self, below: int | None, limit: int) -> list[Revision]:
        """The newest first, of those with numbers below ``below``."""
        return [self._shown(one) for one in await self._store.page(below, limit)]

    async def one(self, number: int) -> RevisionDetail:
        """Raises NotThere."""
        whole = await self._store.whole(number)
        if whole is None:
            raise _no_revision(number)
        return RevisionDetail(
            revision=self._shown(whole.head),
            document=whole.document.decode("utf-8", "replace"),
            changes=whole.changes,
            more_changes=whole.more_changes,
            text_diff=whole.text_diff,
        )

    async def head(self, number: int) -> Revision:
        """Raises NotThere."""
        head = await self._store.head(number)
        if head is None:
            raise _no_revision(number)
        return self._shown(head)

    def configuration(self) -> Configuration:
        """What runs now."""
        assert self._running is not None
        standing: Literal["trial", "confirmed"] = "trial" if self._known.trial else "confirmed"
        text = self._running.raw.decode("utf-8", "replace")
        return Configuration(number=self._number, standing=standing, digest=self._running.digest, document=text)

    async def difference(self, older: int, newer: int) -> Drift:
        """From one revision to another. Raises NotThere, Conflict where one can no longer be read."""
        documents = [await self._must_have(each) for each in (older, newer)]
        names = (f"revision {older}", f"revision {newer}")
        changes, more, text = await asyncio.to_thread(plans.difference, documents[0], documents[1], names)
        return Drift(
            state="differs" if changes or more else "none", running=self._number, changes=changes, more_changes=more, text_diff=text
        )

    async def drift(self) -> Drift:
        """How the file differs from what runs, looked at now."""
        assert self._running is not None
        running, number = self._running, self._number
        self.last_drift = await asyncio.to_thread(_drift, self._file, self._base, running, number)
        return self.last_drift

    # Changes

    async def apply(
        self, raw: bytes, who: Who, *, reason: str = "", confirm_within_s: float | None = None, base: int | None = None
    ) -> Applied:
        """Have ``raw`` run; returns when everything but the API is swapped. Raises Unfit, TooLarge, Conflict, Outdated, Unavailable."""
        self._must_be_free()
        await self._turn.acquire()
        handed_over = False
        try:
            if base is not None and base != self._number:
                raise Outdated(f"revision {self._number} runs, not {base}", "plan again, then decide again")
            document = await asyncio.to_thread(read, raw, self._base)
            self._must_keep_places(document)
            if self._running is not None and document.identity == self._running.identity:
                planned = await asyncio.to_thread(plans.plan, self._running, self._number, document, installed())
                return Applied(changed=False, revision=await self.head(self._number), plan=planned)
            applied, rest = await self._begin(document, who, reason, confirm_within_s)
            handed_over = True
        finally:
            if not handed_over:
                self._turn.release()
        await asyncio.shield(rest)
        return Applied(changed=True, revision=await self.head(applied.revision.number), plan=applied.plan)

    async def _begin(self, document: Document, who: Who, reason: str, within_s: float | None) -> tuple[Applied, asyncio.Future[None]]:
        """Plan, build, keep; the swap goes on in a task of its own, which gives the turn back. The future: the parts are swapped."""
        parts = self._must_run()
        removes_api = parts.site.api is not None and document.site.api is None
        if removes_api and within_s is None and who.origin == "api":
            raise Conflict(
                "this document removes the API, and nothing could be done through it any more",
                "send confirm_within_s, and confirm from a shell",
            )
        planned = await asyncio.to_thread(plans.plan, self._running, self._number, document, installed())
        built = await parts.build(document.site, look=True)
        draft = await self._draft(document, who, reason, self._running, self._number)
        known_file = await asyncio.to_thread(self._identity_of_file)
        revision = await self._add(draft, self._deadline(within_s), known_file if known_file == document.identity else None, None)
        before, self._confirmed = self._running, self._confirmed or self._running
        self._running = document
        log.info(
            "revision_applied", revision=revision.number, author=who.author, origin=who.origin, reason=reason, confirm_within_s=within_s
        )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert self._tasks is not None
        if within_s is not None:
            self._set_timer()
        self._tasks.create_task(self._carry_out(built, revision.number, before, done), name=f"revision {revision.number}")
        return Applied(changed=True, revision=revision, plan=planned), done

    async def _carry_out(self, built: Any, number: int, before: Document | None, done: asyncio.Future[None]) -> None:  # Any: the parts' own
        parts = self._must_run()
        up = _up(parts)
        self._swapping = True
        try:
            try:
                await _swap(parts, built)
            except SwapFailed as error:
                log.exception("revision_failed", revision=number)
                await self._back(number, str(error), GATEWAY)
                _tell(done, Unavailable(f"revision {number} was taken back: {error}", "the log says more"))
                return
            await self._swapped(number)
            _tell(done, None)
            await parts.swap_api()
        finally:
            _tell(done, Unavailable("the gateway ends", "ask again when it is back"))
            self._swapping = False
            self._turn.release()
        self._look(self._watch(number, up), "watching")

    async def _swapped(self, number: int) -> None:
        """From here on it can be confirmed, also while the API still moves."""
        async with self._verdict:
            self._swapping = False
            if self._known.deadline is not None and self._known.deadline.confirms_itself:
                await self._stay(number, "", GATEWAY)

    async def confirm(self, number: int | None, who: Who, reason: str = "") -> Revision:
        """The revision on trial stays. Raises Conflict where there is none, or its time is over; NotThere."""
        async with self._verdict:
            trial = self._known.trial
            if number is not None and number != trial:
                head = await self.head(number)
                if head.standing == "confirmed" and number == self._number:
                    return head
                raise Conflict(f"revision {number} waits for nothing: it is {head.standing}", "see the history")
            if not trial:
                raise Conflict("no revision waits to be confirmed", "see the history")
            if self._swapping:
                raise Conflict(f"revision {trial} is being swapped in", "ask again in a moment")
            if not self._remaining_s():
                raise Conflict(f"the time of revision {trial} is over: the gateway goes back", "apply it again")
            said = f"confirmed by {who.author}" + (f": {reason}" if reason else "")
            return self._shown(await self._stay(trial, said, who))

    async def roll_back(
        self, number: int | None, who: Who, *, reason: str = "", confirm_within_s: float | None = None, base: int | None = None
    ) -> Applied:
        """Have the document of revision ``number`` run again; None: end the trial, or the one that was confirmed before."""
        if self._known.trial and number in (None, self._known.trial, self._known.confirmed):
            return await self._end_trial(who, reason)
        number = number or await self._store.confirmed_before(self._number)
        if not number:
            raise Conflict("there is no earlier revision to go back to", "see the history")
        whole = await self._store.whole(number)
        if whole is None:
            raise _no_revision(number)
        why = f"rollback to {number}" + (f": {reason}" if reason else "")
        return await self.apply(whole.document, who, reason=why, confirm_within_s=confirm_within_s, base=base)

    async def _end_trial(self, who: Who, reason: str) -> Applied:
        self._must_be_free(trial=True)
        async with self._turn:
            trial, on_trial = self._known.trial, self._running
            if not trial:
                raise Conflict("no revision is on trial any more", "see the history")
            await self._back(trial, f"{who.author} went back" + (f": {reason}" if reason else ""), who)
            assert self._running is not None
            planned = await asyncio.to_thread(plans.plan, on_trial, trial, self._running, installed())
        return Applied(changed=True, revision=await self.head(self._number), plan=planned)

    async def take_file(self) -> None:
        """Run what the file says now (SIGHUP). A wrong file is refused, and said; it ends a trial where it is right."""
        async with self._turn:
            assert self._file is not None
            try:
                document = await asyncio.to_thread(_read_file, self._file, self._base)
                built = await self._must_run().build(document.site, look=True)
            except Objection as refused:
                _say_refused(refused)
                return
            await self._take(document, built)

    async def _take(self, document: Document, built: Any) -> None:  # Any: the parts' own
        parts, running = self._must_run(), self._running
        assert running is not None
        for part in plans.AFTER_RESTART:
            if getattr(document.site, part) != getattr(running.site, part):
                log.warning("needs_restart", part=part, advice=f"the new {part} settings are used from the next start on")
        trial = self._known.trial
        ended = (trial, "the file was taken; by file") if trial else None
        if document.identity != running.identity or trial:
            draft = await self._draft(document, FILE, "the file was taken", running, self._number)
            async with self._verdict:
                await self._keep_file(draft, document.identity, ended)
        else:
            await self._keep_identity(document.identity)
        self._stop_timer()
        self._running = self._confirmed = document
        await parts.swap(built)
        await parts.swap_api()
        self._forget()
        log.info("reloaded", site=str(self._file), revision=self._number)
        await self.drift()

    async def _keep_file(self, draft: Draft, identity: str, ended: tuple[int, str] | None) -> None:
        """The file runs also where nothing can be kept: it will be taken again at the next start."""
        try:
            await self._add(draft, None, identity, ended)
        except Unavailable as error:
            log.error("revisions_not_kept", trouble=error.detail, advice="make room; the file is taken all the same")
            self._known = msgspec.structs.replace(self._known, trial=0, deadline=None)

    async def _keep_identity(self, identity: str) -> None:
        if identity == self._known.file:
            return
        try:
            await self._store.take_file(identity)
            self._known = msgspec.structs.replace(self._known, file=identity)
        except Unavailable as error:
            log.error("revisions_not_kept", trouble=error.detail, advice="make room; the file is taken all the same")

    # Staying and going back

    async def _stay(self, number: int, why: str, who: Who) -> Revision:
        head = await self._store.confirm(number, why)
        self._known = msgspec.structs.replace(self._known, confirmed=number, trial=0, deadline=None)
        self._confirmed = self._running
        self._stop_timer()
        self._forget()
        log.info("revision_confirmed", revision=number, by=who.author)
        return head

    async def _back(self, trial: int, why: str, who: Who) -> None:
        """Run what was confirmed. What is durable first: a gateway that dies in between starts with it."""
        async with self._verdict:
            if self._known.trial != trial:
                return  # it was confirmed at the last moment
            log.warning("revision_reverted", revision=trial, reason=why, confirmed=self._known.confirmed)
            confirmed = self._confirmed
            assert confirmed is not None
            try:
                await self._add_return((trial, why), why, who)
            except Unavailable as error:  # at the next start its time is over, and it is written then
                log.error("revisions_not_kept", trouble=error.detail, advice="make room; the gateway goes back all the same")
                self._known = msgspec.structs.replace(self._known, trial=0, deadline=None)
                self._number = self._known.confirmed
        self._stop_timer()
        self._running = confirmed
        self._must_run().audit.record(
            who=who.author, source=who.origin, action="revert_revision", outcome="done", on=f"revision {trial}", detail=why
        )
        assert self._tasks is not None
        await asyncio.wait({self._tasks.create_task(self._swap_back(confirmed, trial), name="going back")})

    async def _swap_back(self, confirmed: Document, trial: int) -> None:
        """Raises StartAnew, which ends all parts of the gateway."""
        parts = self._must_run()
        try:
            async with asyncio.timeout(SWAP_S):
                await parts.swap(await parts.build(confirmed.site, look=False))
                await parts.swap_api()
        except Exception as error:
            log.exception("revision_not_reverted", revision=trial, advice="the gateway starts anew, with what was confirmed")
            raise StartAnew(f"revision {trial} could not be taken back: {error}") from error
        self._forget()

    async def _add_return(self, ended: tuple[int, str], why: str, who: Who = GATEWAY) -> None:
        confirmed, trial = self._confirmed, await self._stored(ended[0])
        assert confirmed is not None
        reason = f"back to revision {self._known.confirmed}: {why}"
        draft = await self._draft(confirmed, who, reason, trial, ended[0])
        await self._add(draft, None, None, ended)

    def _set_timer(self) -> None:
        self._stop_timer()
        self._timer = self._look(self._go_back_in_time(), "trial")

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer is not asyncio.current_task():
            self._timer.cancel()
        self._timer = None

    async def _go_back_in_time(self) -> None:
        trial, deadline = self._known.trial, self._known.deadline
        assert deadline is not None
        await self._clock.sleep_until(deadline.until)
        async with self._turn:
            await self._back(trial, f"it was not confirmed within {deadline.within_s:g} s", GATEWAY)
        await self.drift()

    # Watching

    async def _watch(self, number: int, up: set[tuple[str, str]]) -> None:
        """Wait until what was up is up again, and keep what is not."""
        end = self._clock.monotonic() + WATCH_S
        while (worse := _worse(self._must_run(), up)) and self._clock.monotonic() < end and self._number == number:
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_S)
        if self._number != number:
            return
        for each in worse:
            log.warning("worse_than_before", revision=number, kind=each.kind, name=each.name, trouble=each.trouble)
        try:
            head = await self._store.head(number)
            if head is not None:
                await self._store.watched(number, msgspec.structs.replace(head, watched=True, worse=worse))
        except Unavailable as error:
            log.error("revisions_not_kept", trouble=error.detail, advice="make room")
        await self.drift()

    # Small things

    def _shown(self, head: Revision) -> Revision:
        trial = None
        if head.number == self._known.trial and self._known.deadline is not None:
            deadline = self._known.deadline
            trial = Trial(within_s=deadline.within_s, until_ns=deadline.until_ns, remaining_s=round(self._remaining_s(), 3))
        return msgspec.structs.replace(head, running=head.number == self._number, trial=trial)

    def _remaining_s(self) -> float:
        deadline = self._known.deadline
        return decide.remaining_s(deadline, self._boot, self._clock.monotonic()) if deadline else 0.0

    def _deadline(self, within_s: float | None) -> Deadline:
        lasts = within_s or SWAP_S
        return Deadline(
            within_s=lasts,
            until_ns=self._clock.time_ns() + round(lasts * 1e9),
            boot=self._boot,
            until=self._clock.monotonic() + lasts,
            confirms_itself=within_s is None,
        )

    async def _draft(self, document: Document, who: Who, reason: str, before: Document | None, base: int) -> Draft:
        names = (f"revision {base}", "this revision")
        changes, more, text = await asyncio.to_thread(plans.difference, before, document, names) if before else ([], 0, "")
        head = Revision(
            number=1,
            made_ns=self._clock.time_ns(),
            author=who.author,
            origin=who.origin,
            reason=reason,
            standing="confirmed",
            running=False,
            base=base,
            digest=document.digest,
            bytes=len(document.raw),
            changed=len(changes) + more,
            templates=document.templates,
        )
        return Draft(head, document.raw, tuple(changes), more, text)

    async def _add(self, draft: Draft, deadline: Deadline | None, file: str | None, ended: tuple[int, str] | None) -> Revision:
        head = await self._store.add(draft, deadline=deadline, file=file, ended=ended)
        known = msgspec.structs.replace(self._known, file=self._known.file if file is None else file, trial=0, deadline=None)
        if deadline is None:
            self._known = msgspec.structs.replace(known, confirmed=head.number)
        else:
            self._known = msgspec.structs.replace(known, trial=head.number, deadline=deadline)
        self._number = head.number
        return head

    async def _stored(self, number: int) -> Document | None:
        """The document of a revision as it reads today; None where it does not any more."""
        whole = await self._store.whole(number)
        if whole is None:
            return None
        for known in (self._from_file, self._running, self._confirmed):
            if known is not None and known.raw == whole.document:
                return known
        try:
            document = await asyncio.to_thread(read, whole.document, self._base)
        except Objection as error:
            log.error("revision_not_read", revision=number, trouble=error.detail)
            return None
        if document.templates != whole.head.templates:
            log.warning("templates_changed", revision=number, advice="it names templates that have changed since it was applied")
        return document

    async def _must_have(self, number: int) -> Document:
        await self.head(number)
        document = await self._stored(number)
        if document is None:
            raise Conflict(f"the document of revision {number} can no longer be read", "see the log")
        return document

    def _must_be_free(self, *, trial: bool = False) -> None:
        if self._turn.locked():
            raise Conflict("another change is being applied", "wait until it is done, then plan again")
        if self._known.trial and not trial:
            raise Conflict(f"revision {self._known.trial} waits to be confirmed", "confirm it, or go back, first")

    def _must_run(self) -> Parts:
        if self._parts is None:
            raise Unavailable("the gateway is starting", "ask again in a moment")
        return self._parts

    def _must_keep_places(self, document: Document) -> None:
        """Raises Unfit where the document moves what the gateway finds itself by."""
        now = self._from_file or self._running
        if now is None:
            return
        for path, old, new in (
            ("journal.path", now.site.journal.path, document.site.journal.path),
            ("state_path", now.site.state_path, document.site.state_path),
        ):
            if config.resolve(old, self._base) != config.resolve(new, self._base):
                raise Unfit(f"{path} is {old} in the running gateway, which finds its journal and revisions by it", _MOVES)

    def _forget(self) -> None:
        """Uplinks that neither what runs nor what was confirmed has are forgotten."""
        if self._parts is not None:
            sites = [one.site for one in (self._running, self._confirmed if self._known.trial else None) if one is not None]
            self._parts.forget_uplinks({uplink.name for site in sites for uplink in site.uplinks})

    def _identity_of_file(self) -> str:
        if self._file is None:
            return ""
        try:
            return _read_file(self._file, self._base).identity
        except Objection:
            return ""


def _boot() -> str:
    """Which run of the machine this is; empty where it does not say, and then no trial outlives the process."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _read_file(file: Path, base: Path) -> Document:
    """Raises Unfit."""
    return read(_raw_of(file), base)


def _raw_of(file: Path) -> bytes:
    """Raises Unfit."""
    try:
        with file.open("rb") as content:
            return content.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unfit(f"{file} cannot be read: {error.strerror}", "check the path and who may read it") from error


def _drift(file: Path | None, base: Path, running: Document, number: int) -> Drift:
    if file is None:
        return Drift(state="no-file", running=number)
    try:
        raw = _raw_of(file)
        if digest(raw) == running.digest and templates_of(raw, base) == running.templates:  # to check it anew takes 16 MB for 10,000 tags
            return Drift(state="none", file=str(file), running=number)
        laid = read(raw, base)
    except Objection as error:
        return Drift(state="unreadable", file=str(file), running=number, trouble=f"{error.detail}: {error.advice}")
    if laid.identity == running.identity:
        return Drift(state="none", file=str(file), running=number)
    changes, more, text = plans.difference(laid, running, (str(file), f"revision {number}"))
    state: Literal["differs", "same-meaning"] = "differs" if changes or laid.site != running.site else "same-meaning"
    return Drift(state=state, file=str(file), running=number, changes=changes, more_changes=more, text_diff=text)


def _say_refused(refused: Objection) -> None:
    errors = [one for one in getattr(refused, "problems", ()) if one.severity == "error"]
    for problem in errors:
        log.error("reload_refused", path=problem.path, problem=problem.message, advice=problem.advice)
    if not errors:
        log.error("reload_refused", path="", problem=refused.detail, advice=refused.advice)


def _up(parts: Parts) -> set[tuple[str, str]]:
    return {(one.kind, one.name) for one in parts.statuses if one.state is links.State.UP}


def _worse(parts: Parts, up: set[tuple[str, str]]) -> list[Worse]:
    return [
        Worse(kind=one.kind, name=one.name, trouble=one.trouble or str(one.state))
        for one in parts.statuses
        if (one.kind, one.name) in up and one.state is not links.State.UP
    ]


async def _swap(parts: Parts, built: Any) -> None:  # Any: the parts' own
    """Raises SwapFailed, whatever went wrong: the way back is the same."""
    try:
        async with asyncio.timeout(SWAP_S):
            await parts.swap(built)
    except Exception as error:
        raise SwapFailed(f"it could not be swapped in: {type(error).__name__}: {error}") from error


def _tell(done: asyncio.Future[None], error: Exception | None) -> None:
    if not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            done.exception()  # whoever asked may have gone: nobody has to look at it


def _no_revision(number: int) -> NotThere:
    return NotThere(f"there is no revision {number}, or no longer", "see the history")
