"""What people and machines did, in the order in which they did it, on the disk.

``record`` takes an entry and returns at once; a thread of the log's own writes what was taken, in portions, each made durable
by one fsync. Where the disk says no, entries wait in bounded memory and control goes on; what does not fit any more is counted,
and the count becomes an entry where the missing ones would stand. Nobody can change or remove an entry through the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from gateway.audit import store
from gateway.audit.chain import Entry, Head, Outcome, Verdict, digest_of, entry_of, line_of
from gateway.audit.flood import Flood
from gateway.audit.store import Mended, Store
from gateway.config.audit import AuditOptions
from gateway.objections import Unavailable
from protocols.clock import Clock

log = structlog.get_logger("holdfast.audit")

T = TypeVar("T")

REMEMBERED: Final = 1000
MOST_WAITING: Final = 10_000
MOST_WAITING_BYTES: Final = 8 * 1024 * 1024
PORTION: Final = 500
RETRY_S: Final = 1.0
TELL_S: Final = 60.0
"""Refusals that were left out are told so often at most."""
CLOSE_S: Final = 5.0
LONGEST_VALUE: Final = 16 * 1024
LONGEST_TEXT: Final = 2000
PIECE_BYTES: Final = 256 * 1024


class Audit:
    """The log in ``folder``; None keeps the newest entries in memory alone, for who only tries something out.

    ``record`` is for the event loop and for threads; the questions belong to the event loop.
    """

    def __init__(self, clock: Clock, folder: Path | None = None) -> None:
        self._clock = clock
        self._folder = folder
        self._options = AuditOptions()
        self._flood = Flood()
        self._change = threading.Condition()
        self._waiting: deque[tuple[Entry, int]] = deque()
        self._waiting_bytes = 0
        self._written = 0
        self._taken = 0
        self._closing = False
        self._is_open = False
        self._thread: threading.Thread | None = None
        self.newest: deque[Entry] = deque(maxlen=REMEMBERED)
        """The last entries that were taken, written or not, without numbers."""
        self.head = Head()
        """The last entry that is on the disk."""
        self.trouble = ""
        """Why entries are not written now; empty where they are."""
        self.unwritten = 0
        """Entries that were lost since the disk says no, and are not told of in the log yet."""
        self.lost = 0
        """Entries that were lost since the start. The log says where."""

    @property
    def waiting(self) -> int:
        """Entries that are not on the disk yet."""
        return len(self._waiting)

    def bound(self, options: AuditOptions) -> None:
        """Keep so much from now on."""
        self._options = options

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write what is taken, until left; then what waits still, for as long as CLOSE_S."""
        if self._folder is not None:
            self._thread = threading.Thread(target=self._write_for_ever, args=(Store(self._folder),), name="audit", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            await self._close()

    async def _close(self) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._waiting:
            log.error("audit_not_written", entries=len(self._waiting), trouble=self.trouble)

    # ------------------------------------------------------------------------------------------------ taking

    def record(
        self,
        *,
        who: str,
        action: str,
        outcome: Outcome,
        source: str = "",
        on: str = "",
        detail: str = "",
        before: Any = None,  # Any: JSON values, as after
        after: Any = None,
        request: str = "",
        status: int = 0,
    ) -> None:
        """Take an entry. Never waits and never raises: control goes on where the log cannot be written. No secret may be in it."""
        entry = Entry(
            time_ns=self._clock.time_ns(),
            who=_text(who),
            source=_text(source),
            action=_text(action),
            on=_text(on),
            outcome=outcome,
            request=_text(request),
            status=status,
            detail=_text(detail),
            before=_value(before),
            after=_value(after),
        )
        log.info("audit", who=entry.who, source=entry.source, action=entry.action, on=entry.on, outcome=outcome, detail=entry.detail)
        self._take(entry)

    def refused(self, *, who: str, action: str, source: str, **more: Any) -> None:  # Any: as record takes them
        """As :meth:`record` with outcome refused, for what anybody can cause: of a flood, some become entries, the others are counted."""
        with self._change:
            admitted = self._flood.admits(source, self._clock.monotonic())
        if admitted:
            self.record(who=who, action=action, source=source, outcome="refused", **more)

    def _take(self, entry: Entry) -> None:
        size = len(line_of(entry)) + 100
        with self._change:
            self.newest.append(entry)
            if self._folder is None:
                return
            if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + size > MOST_WAITING_BYTES:
                self.unwritten += 1
                self.lost += 1
                return
            if self.unwritten:
                self._push(self._gap(), 0)
            self._push(entry, size)
            self._change.notify_all()

    def _push(self, entry: Entry, size: int) -> None:
        self._waiting.append((entry, size))
        self._waiting_bytes += size
        self._taken += 1

    def _gap(self) -> Entry:
        lost, self.unwritten = self.unwritten, 0
        return self._own("entries_lost", "failed", f"{lost} entries could not be kept: the disk took none", after={"entries": lost})

    def _own(self, action: str, outcome: Outcome, detail: str, after: Any = None) -> Entry:  # Any: JSON values
        return Entry(time_ns=self._clock.time_ns(), who="gateway", action=action, outcome=outcome, detail=detail, after=after)

    # ------------------------------------------------------------------------------------------------ the thread

    def _write_for_ever(self, into: Store) -> None:
        while True:
            try:
                if not self._is_open:
                    self._open(into)
                portion = self._portion()
                if portion is None:
                    break
                if portion:
                    self._append(into, portion)
            except OSError as error:
                if self._failed(error):
                    break
        into.close()

    def _portion(self) -> list[Entry] | None:
        """What is to be written next; empty when there has been nothing for a while, None at the end."""
        with self._change:
            if not self._waiting and not self._closing:
                self._change.wait(TELL_S)
            self._tell_left_out()
            if not self._waiting and self.unwritten:
                self._push(self._gap(), 0)
            if not self._waiting and self._closing:
                return None
            return [entry for entry, _ in itertools.islice(self._waiting, PORTION)]

    def _tell_left_out(self) -> None:
        if self._waiting or not (told := self._flood.left_out()):
            return
        detail = f"{sum(told.values())} more refusals like those before did not become entries"
        self._push(self._own("refusals_left_out", "refused", detail, after=dict(sorted(told.items()))), 0)

    def _open(self, into: Store) -> None:
        mended = into.open()
        with self._change:
            self._is_open, self.head = True, into.head
            for each in reversed(mended):
                self._waiting.appendleft((self._of_mended(each), 0))
                self._taken += 1
            if not self._waiting:
                self._healed()
            self._change.notify_all()
        log.info("audit_head", number=into.head.number, digest=into.head.digest)

    def _of_mended(self, mended: Mended) -> Entry:
        detail = f"the end of {mended.file} was no entry, as after a power cut, and was removed: {len(mended.removed)} bytes"
        begin = mended.removed[:500].decode(errors="backslashreplace")
        return self._own("audit_mended", "done", detail, after={"bytes": len(mended.removed), "begin": begin})

    def _append(self, into: Store, portion: list[Entry]) -> None:
        removed = into.append(portion, self._options)
        with self._change:
            for _ in portion:
                self._waiting_bytes -= self._waiting.popleft()[1]
            self._written += len(portion)
            self.head = into.head
            self._healed()
            self._change.notify_all()
            if removed is not None:
                detail = f"entries {removed.first} to {removed.last.number} were removed: the log is bounded"
                self._push(self._own("audit_removed", "done", detail, after=msgspec.to_builtins(removed.last)), 0)
        if removed is not None:
            log.info("audit_head", number=into.head.number, digest=into.head.digest)

    def _failed(self, error: OSError) -> bool:
        """Wait before it is tried again; True where there is no more trying."""
        with self._change:
            if not self.trouble:
                log.error("audit_not_written", trouble=str(error), advice="make room: entries wait in memory, control goes on")
            self.trouble = str(error)
            self._change.notify_all()
            if not self._closing:
                self._change.wait_for(lambda: self._closing, RETRY_S)
                return False
            return True

    def _healed(self) -> None:
        if self.trouble:
            log.info("audit_written_again", number=self.head.number)
        self.trouble = ""

    # ------------------------------------------------------------------------------------------------ questions

    async def settled(self) -> None:
        """Wait until what was taken until now is on the disk, or is known not to get there."""
        if self._thread is not None:
            await asyncio.to_thread(self._settle)

    def _settle(self) -> None:
        with self._change:
            over = self._change.wait_for(lambda: self._is_open or bool(self.trouble) or self._closing, CLOSE_S)
            upto = self._taken
            self._change.wait_for(lambda: self._written >= upto or not over or bool(self.trouble) or self._closing, CLOSE_S)

    async def page(self, wanted: Callable[[Entry], bool], before: int | None, limit: int) -> tuple[list[tuple[Entry, str]], int | None]:
        """At most ``limit`` entries that are ``wanted`` and stand before ``before``, newest first, with their digests, and where
        to go on. Raises Unavailable where the disk cannot be read."""
        await self.settled()
        if self._folder is None:
            return [(entry, digest_of(line_of(entry))) for entry in list(self.newest)[::-1] if wanted(entry)][:limit], None
        return await self._asked(store.newest, self._folder, before, wanted, limit)

    async def verify(self) -> Verdict:
        """Whether the whole log is one chain. Raises Unavailable."""
        await self.settled()
        if self._folder is None:
            return Verdict(entries=0, first=0, head=self.head)
        return await self._asked(store.check, self._folder)

    async def export(self, first: int = 1, last: int | None = None) -> AsyncIterator[bytes]:
        """The lines of entries ``first`` to ``last`` (None: the newest at the moment of asking) as they are on the disk, in portions.
        Raises Unavailable."""
        await self.settled()
        end = self.head.number if last is None else min(last, self.head.number)
        at = first
        while self._folder is not None and at <= end:
            pieces, following = await self._asked(_pieces_of, self._folder, at, end)
            for piece in pieces:
                yield piece
            if following <= at:
                return
            at = following

    async def _asked(self, question: Callable[..., T], *arguments: Any) -> T:  # Any: each question has its own
        try:
            return await asyncio.to_thread(question, *arguments)
        except OSError as error:
            raise Unavailable(f"the audit log cannot be read ({error})", "look at the disk; everything else goes on") from error


def _pieces_of(folder: Path, first: int, last: int) -> tuple[list[bytes], int]:
    """Lines from entry ``first`` on, about as many as a file has, in pieces of about PIECE_BYTES, and the number to go on with."""
    pieces, kept, size, whole, at = list[bytes](), list[bytes](), 0, 0, first
    for line in store.lines(folder, first):
        number = _number(line)
        if number > last or whole >= store.LONGEST_FILE:
            break
        if 0 < number < first:
            kept.clear()
            size = 0
            continue
        kept.append(line)  # also what is no entry: whoever verifies shall see it too
        size, at = size + len(line), number + 1 if number else at
        if size >= PIECE_BYTES:
            pieces.append(b"".join(kept))
            whole, size = whole + size, 0
            kept.clear()
    return [*pieces, b"".join(kept)] if kept else pieces, at


def _number(line: bytes) -> int:
    """Of the entry in ``line``; 0 where it is none."""
    try:
        return entry_of(line).number
    except ValueError:
        return 0


def _text(text: str) -> str:
    """``text``, bounded, as UTF-8 can say it."""
    return text[:LONGEST_TEXT].encode(errors="replace").decode()


def _value(value: Any) -> Any:  # Any: JSON values
    """``value`` as it is now, for it may change; what is too long, or is no JSON, is said to be so."""
    if value is None:
        return None
    try:
        encoded = msgspec.json.encode(value, order="sorted", enc_hook=str)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return {"cannot be said": type(error).__name__}
    if len(encoded) > LONGEST_VALUE:
        return {"too long": len(encoded), "sha256": digest_of(encoded), "begins": encoded[:500].decode(errors="replace")}
    return msgspec.json.decode(encoded)
