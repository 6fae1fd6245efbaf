"""Brings a backup back: everything is written beside what is there, proven, and then takes its place.

Never over a gateway that runs (the journal's lock is held meanwhile), and nothing is removed: what was there lies beside under
``.replaced-...``. A journal from a backup begins a new epoch, because the original may have gone on with the same sequence numbers after
the backup was made. An audit log that is there is kept and goes on: it knows more than the backup, and nobody may turn it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway import config
from gateway.audit.chain import Entry
from gateway.audit.store import Store as AuditStore
from gateway.backup.archive import ABOUT, FORMAT, About, Reader
from gateway.backup.envelope import MAGIC, Opened, Unsealed, is_sealed
from gateway.backup.make import AUDIT
from gateway.config import model
from gateway.config.templates import FOLDER as TEMPLATES
from gateway.control import SOCKET
from gateway.journal import LOCK, Journal, JournalBusy
from gateway.journal.segment import sync, sync_folder
from gateway.releases.number import number_of
from gateway.state import FILE
from protocols.clock import Clock

BESIDE: Final = ".restoring"
OF_STATE: Final = frozenset({FILE, f"{FILE}-journal", "kept"})
OF_JOURNAL: Final = frozenset({"events", "telemetry", "heads", "history", "quarantine", "reserve", LOCK, SOCKET, "state"})
"""What a backup brings back, or is made anew. Everything else in the folder is carried over: numbers that must never be used twice, for one
(OSCORE's, where its state_folder lies there)."""
_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be brought back, and what whoever asks has said."""

    site: Path
    file: Path
    passphrase: str | None
    release: str
    foreign: bool = False
    """Also the backup of another gateway."""
    keep_site: bool = False
    """The document that lies at ``site`` stays."""


@dataclass(frozen=True, slots=True)
class Restored:
    about: About
    replaced: tuple[Path, ...]
    """Where what was there before lies now."""
    audit_kept: bool


@dataclass(frozen=True, slots=True)
class _Places:
    document: model.Site
    journal: Path
    state: Path

    @property
    def staged_journal(self) -> Path:
        return self.journal.with_name(self.journal.name + BESIDE)

    def staged_state(self, whole: bool) -> Path:
        """``whole``: with a journal, in which the state may lie."""
        if whole and self.state.is_relative_to(self.journal):
            return self.staged_journal / self.state.relative_to(self.journal)
        return self.state.with_name(self.state.name + BESIDE)


def restore(wish: Wish, clock: Clock) -> Restored:
    """Bring it back. Raises Unsealed where the backup is not to be had, JournalBusy where a gateway runs, OSError, StorageError; then
    everything is as it was."""
    with wish.file.open("rb") as file:
        return _Restoring(wish, clock, _reader(file, wish.passphrase)).all()


class _Restoring:
    def __init__(self, wish: Wish, clock: Clock, reader: Reader) -> None:
        self._wish, self._clock, self._reader = wish, clock, reader
        self._site = wish.site.with_name(f".{wish.site.name}{BESIDE}")
        """The staged document and templates."""
        self._made: list[Path] = []
        """Staged, and not yet in place."""
        self._about: About | None = None
        self._places: _Places | None = None

    def all(self) -> Restored:
        with contextlib.ExitStack() as stack:
            stack.callback(self._tidy)
            self._stage(self._site)
            for name, _, portions in self._reader.members():
                if self._places is None and not name.startswith(("about", "site/")):
                    self._settle(stack)
                self._take(name, portions)
            self._reader.check()
            if self._places is None:
                self._settle(stack)
            return self._swap()

    # ---- what is in it

    def _take(self, name: str, portions: Iterator[bytes]) -> None:
        if name == ABOUT:
            self._about = self._judged(b"".join(portions))
            return
        if self._about is None:
            raise Unsealed("it does not say first what it is of")
        part, _, rest = name.partition("/")
        if part == "site":
            target = self._site / (self._wish.site.name if rest == "document" else rest)
        else:
            assert self._places is not None
            target = (self._staged_state if part == "state" else self._places.staged_journal) / rest
        _write(target, portions)

    def _judged(self, content: bytes) -> About:
        try:
            about = msgspec.json.decode(content, type=About)
        except msgspec.MsgspecError as error:
            raise Unsealed(f"it does not say what it is of: {error}") from None
        if (about.product, about.format) != ("holdfast", FORMAT) or number_of(about.release) > number_of(self._wish.release):
            raise Unsealed(f"release {about.release} made it, and this is {self._wish.release}: install that release first")
        return about

    def _settle(self, stack: contextlib.ExitStack) -> None:
        """The document is known: whose it is, and where everything goes. From here on no gateway may start."""
        if self._about is None:
            raise Unsealed("it does not say what it is of")
        there = self._there()
        mine = there.gateway if there is not None else None
        if mine is not None and (mine.group, mine.name) != (self._about.group, self._about.gateway) and not self._wish.foreign:
            called = f"{self._about.group}/{self._about.gateway}"
            raise Unsealed(f"it is of {called}, and this gateway is {mine.group}/{mine.name}: --foreign takes it all the same")
        document = there if self._wish.keep_site and there is not None else self._documented()
        base = self._wish.site.parent
        journal = config.resolve(document.journal.path, base)
        self._places = _Places(document, journal, config.state_folder(document, base))
        stack.enter_context(_held(journal))
        if self._about.journal:
            self._stage(self._places.staged_journal)
        self._staged_state = self._places.staged_state(self._about.journal)
        if not self._staged_state.is_relative_to(self._places.staged_journal):
            self._stage(self._staged_state)

    def _there(self) -> model.Site | None:
        """The document that is there; None where there is none, or it is wrong and not to be kept."""
        if not self._wish.site.exists():
            if self._wish.keep_site:
                raise Unsealed(f"{self._wish.site} is not there, so it cannot be kept")
            return None
        found, _ = config.judge(self._wish.site)
        if found is None and self._wish.keep_site:
            raise Unsealed(f"{self._wish.site} is wrong: holdfast check says how")
        return found

    def _documented(self) -> model.Site:
        file = self._site / self._wish.site.name
        found, problems = config.judge(file) if file.exists() else (None, [])
        if found is None:
            said = "; ".join(f"{one.path}: {one.message}" for one in problems[:3] if one.severity == "error") or "there is none"
            raise Unsealed(f"the document in it cannot be used: {said}: --keep-site takes the rest")
        return found

    # ---- in place

    def _swap(self) -> Restored:
        assert self._about is not None
        assert self._places is not None
        places, about, replaced = self._places, self._about, list[Path]()
        kept = self._keep_audit(places)
        self._record(places, about)
        _carry(places.state, self._staged_state, OF_STATE)
        if about.journal:
            _carry(places.journal, places.staged_journal, OF_JOURNAL)
        if about.journal:
            asyncio.run(_renewed(places, self._clock))
        number = self._clock.time_ns()
        for staged, target in ((self._staged_state, places.state), (places.staged_journal, places.journal)):
            if staged in self._made:
                _own(staged, target)
                replaced += self._exchange(staged, target, number)
        if not self._wish.keep_site:
            replaced += self._exchange_site(number)
        return Restored(about, tuple(replaced), kept)

    def _keep_audit(self, places: _Places) -> bool:
        """The audit log that is there goes on; only where there is none, the backup's does."""
        there = places.state / AUDIT
        if not any(there.glob("audit-*.ndjson")):
            return False
        shutil.rmtree(self._staged_state / AUDIT, ignore_errors=True)  # it may have none
        shutil.copytree(there, self._staged_state / AUDIT)
        return True

    def _record(self, places: _Places, about: About) -> None:
        log = AuditStore(self._staged_state / AUDIT)
        self._staged_state.mkdir(mode=0o700, exist_ok=True)
        log.open()
        told = f"a backup of {about.group}/{about.gateway}, made by release {about.release} at {about.made_ns} ns UTC"
        entry = Entry(time_ns=self._clock.time_ns(), who="shell", source="console", action="restore", outcome="done", detail=told)
        log.append([entry], places.document.audit)
        log.close()

    def _exchange(self, staged: Path, target: Path, number: int) -> list[Path]:
        """``staged`` takes the place of ``target`` in one step; where what was there lies now."""
        _sync_tree(staged)
        self._made.remove(staged)
        if not target.exists():
            staged.rename(target)
            sync_folder(target.parent)
            return []
        old = target.with_name(f"{target.name}.replaced-{number}")
        _exchange(staged, target)
        staged.rename(old)
        sync_folder(target.parent)
        return [old]

    def _exchange_site(self, number: int) -> list[Path]:
        """Templates first: a document without them would be wrong."""
        replaced: list[Path] = []
        site = self._wish.site
        for staged, target in ((self._site / TEMPLATES, site.parent / TEMPLATES), (self._site / site.name, site)):
            if staged.exists():
                _own(staged, target)
                self._made.append(staged)
                replaced += self._exchange(staged, target, number)
        return replaced

    def _stage(self, folder: Path) -> None:
        """A private folder; what an earlier attempt left in it goes."""
        shutil.rmtree(folder, ignore_errors=not folder.exists())
        folder.mkdir(parents=True, mode=0o700)
        self._made.append(folder)

    def _tidy(self) -> None:
        for path in self._made:
            if path.is_dir():
                shutil.rmtree(path)


def _reader(file: BinaryIO, passphrase: str | None) -> Reader:
    start = file.read(len(MAGIC))
    file.seek(0)
    if not is_sealed(start):
        if passphrase is not None:
            raise Unsealed("it is not encrypted, and a passphrase was given: is it the right file? Without one it is taken as it is")
        return Reader(file.read)
    if passphrase is None:
        raise Unsealed("it is encrypted: name the passphrase")
    return Reader(Opened(file.read, passphrase).read)


async def _renewed(places: _Places, clock: Clock) -> None:
    """Open the staged journal once, so that it is whole and begins a new epoch."""
    options = msgspec.structs.replace(places.document.journal, path=str(places.staged_journal.absolute()))
    journal = await Journal.open(options, clock=clock, renew=True)
    await journal.close()


@contextmanager
def _held(journal: Path) -> Iterator[None]:
    """No gateway runs on the journal, and none starts. Raises JournalBusy."""
    fresh = not journal.exists()
    journal.mkdir(parents=True, exist_ok=True, mode=0o700)
    if fresh:
        _own(journal, journal.parent)
    descriptor = os.open(journal / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _own(journal / LOCK, journal)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalBusy(f"{journal}: a gateway runs on it: stop it first (systemctl stop holdfast)") from None
        yield
    finally:
        os.close(descriptor)


def _write(target: Path, portions: Iterator[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        for portion in portions:
            file.write(portion)
        file.flush()
        os.fsync(file.fileno())


def _carry(old: Path, staged: Path, own: frozenset[str]) -> None:
    """Copy what the folder that is replaced has besides its own, and what the backup does not bring."""
    for path in old.iterdir() if old.exists() else ():
        target = staged / path.name
        if path.name in own or BESIDE in path.name or target.exists() or not (path.is_file() or path.is_dir()):
            continue
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copy2(path, target, follow_symlinks=False)


def _own(path: Path, like: Path) -> None:
    """As root: give it to whoever has ``like``, or the folder that it lies in. A single file keeps its mode too."""
    while not like.exists():
        like = like.parent
    told = like.stat()
    if stat.S_ISREG(told.st_mode) and path.is_file():
        path.chmod(stat.S_IMODE(told.st_mode) & 0o777)
    if os.geteuid() == 0:
        for each in (path, *path.rglob("*")):
            os.chown(each, told.st_uid, told.st_gid, follow_symlinks=False)


def _sync_tree(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        if each.is_dir():
            sync_folder(each)
        elif each.is_file():
            sync(each)


def _exchange(one: Path, other: Path) -> None:
    """The two change places in one step (renameat2(2)); in two where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(other))
    between = one.with_name(f"{one.name}.between")
    other.rename(between)
    one.rename(other)
    between.rename(one)
