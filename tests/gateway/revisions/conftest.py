"""Revisions without a whole gateway: their state on a real disk, a clock that stands still, and parts that only note what they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway import config, links
from gateway.audit import Audit
from gateway.config import model
from gateway.revisions import store
from gateway.revisions.revisions import Revisions, Who
from gateway.state import State
from protocols.clock import ManualClock

ANNA: Final = Who("user:anna", "api")
BOOT: Final = "this-run-of-the-machine"


def document(*uplinks: str, **more: Any) -> dict[str, Any]:  # Any: JSON
    """A site with these uplinks."""
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "edge"},
        "uplinks": [{"type": "mqtt", "name": name, "host": "127.0.0.1"} for name in uplinks],
        "outage_budget_s": 0,
        **more,
    }


def raw(*uplinks: str, **more: Any) -> bytes:  # Any: JSON
    return json.dumps(document(*uplinks, **more)).encode()


@dataclass
class Noted:
    """Parts that run nothing, and note what they are told."""

    site: model.Site
    audit: Audit
    fails: int = 0
    """So many swaps fail."""
    swaps: list[tuple[str, ...]] = field(default_factory=list)
    apis: int = 0
    kept: set[str] = field(default_factory=set)
    held: asyncio.Event | None = None
    """A swap waits for it."""

    @property
    def statuses(self) -> Sequence[links.Status]:
        return [links.Status("uplink", one.name, links.State.UP) for one in self.site.uplinks]

    async def build(self, site: model.Site, *, look: bool) -> model.Site:
        return site

    async def swap(self, built: model.Site) -> None:
        if self.held is not None:
            await self.held.wait()
        if self.fails:
            self.fails -= 1
            raise OSError("no room")
        self.site = built
        self.swaps.append(tuple(one.name for one in built.uplinks))

    async def swap_api(self) -> None:
        self.apis += 1

    def forget_uplinks(self, keep: Collection[str]) -> None:
        self.kept = set(keep)


@dataclass
class Life:
    """One run of the process."""

    revisions: Revisions
    parts: Noted
    clock: ManualClock
    journal: model.JournalOptions

    @property
    def uplinks(self) -> list[str]:
        return [one.name for one in self.parts.site.uplinks]


@asynccontextmanager
async def life(folder: Path, clock: ManualClock, boot: str = BOOT, on: Callable[[Life], None] | None = None) -> AsyncIterator[Life]:
    """The revisions of the gateway whose file is ``folder/site.yaml``, from its start until it is left: then it is as if it were killed."""
    file = folder / "site.yaml"
    state = await State.open(folder / "state", (store.MIGRATIONS,), clock)
    site, problems = config.judge(file)
    assert site is not None, problems
    revisions = Revisions(state, clock, folder, file, boot=boot)
    try:
        _, journal = await revisions.choose(site, file.read_bytes())
        async with asyncio.TaskGroup() as tasks:
            parts = Noted(await revisions.settle(), Audit(clock))
            revisions.run(parts, tasks)
            alive = Life(revisions, parts, clock, journal)
            try:
                yield alive
            finally:
                _kill()
    finally:
        await state.close()


def _kill() -> None:
    """A killed process finishes nothing."""
    for task in asyncio.all_tasks():
        name = task.get_name()
        if name.startswith("revision") or name in ("trial", "drift", "going back"):
            task.cancel()


def lay(folder: Path, *uplinks: str, **more: Any) -> None:  # Any: JSON
    """Lay down the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_bytes(raw(*uplinks, **more))
