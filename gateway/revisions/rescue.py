"""What a gateway runs whose file is wrong when it starts: what was last confirmed, if the file still says where that is kept.

A file that somebody broke is no reason to read nothing after the next power cut. The file is read as far as it is YAML: its
``state_path`` and ``journal.path`` lead to the gateway's state. After a rollback to an older release both the file and what was
confirmed last may have keys that it does not know: then the newest confirmed revision that it can read runs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.config import model, resolve
from gateway.config.document import MAX_BYTES, parse
from gateway.journal import LOCK
from gateway.objections import Objection, Unfit
from gateway.revisions.document import Document, read
from gateway.revisions.store import MIGRATIONS, Store
from gateway.state import FILE, State
from protocols.clock import Clock

log = structlog.get_logger("holdfast.revisions")

MOST_TRIED: Final = 20
"""Revisions that are read before it is given up."""


async def confirmed(file: Path, clock: Clock) -> Document | None:
    """The document that was last confirmed in the gateway of ``file``; None where there is none, or it cannot be found or read."""
    folder, journal = await asyncio.to_thread(_places_of, file)
    if not (folder / FILE).is_file():
        return None
    state = await State.open(folder, (MIGRATIONS,), clock, lock=journal / LOCK)
    try:
        found = await _usable(Store(state), file.parent)
    except Objection as error:
        log.error("revision_not_usable", trouble=error.detail)
        return None
    finally:
        await state.close()
    if found is None:
        return None
    number, document = found
    log.error("file_not_usable", file=str(file), running=number, advice="what was confirmed runs; holdfast check says why")
    return document


async def _usable(store: Store, base: Path) -> tuple[int, Document] | None:
    """The newest confirmed revision that can be used; the last is tried first, then those before it. Raises Unavailable."""
    number = (await store.known()).confirmed
    for _ in range(MOST_TRIED):
        whole = await store.whole(number)
        if whole is None:
            return None
        try:
            return number, await asyncio.to_thread(read, whole.document, base)
        except Unfit as error:
            log.error("revision_not_usable", revision=number, trouble=error.detail)
        number = await store.confirmed_before(number)
    return None


def _places_of(file: Path) -> tuple[Path, Path]:
    """The folders of the state and of the journal."""
    try:
        with file.open("rb") as content:
            parsed, _ = parse(content.read(MAX_BYTES))
    except OSError:
        parsed = None
    value: Any = parsed.value if parsed is not None else None  # Any: plain values
    value = value if isinstance(value, dict) else {}
    options = value.get("journal")
    path = options.get("path") if isinstance(options, dict) else None
    journal = resolve(path if isinstance(path, str) and path else model.JournalOptions().path, file.parent)
    if isinstance(value.get("state_path"), str) and value["state_path"]:
        return resolve(value["state_path"], file.parent), journal
    return journal / "state", journal
