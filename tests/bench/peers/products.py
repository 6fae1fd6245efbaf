"""The products that are measured: how each is started for a load, and which version it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.loads import Load, connections, site
from tests.bench.measure import ROOT
from tests.bench.peers import node_red, thingsboard
from tests.bench.peers.process import running
from tests.peers.mosquitto import free_port

Start = Callable[[Load, Sequence[int], int, Path], AbstractAsyncContextManager[int]]


@dataclass(frozen=True)
class Product:
    """``start(load, field ports, broker's port, folder)`` gives its process id while it runs."""

    name: str
    start: Start
    version: Callable[[], str]
    missing: Callable[[], str | None] = lambda: None
    """How to install it, if it is not."""


@asynccontextmanager
async def holdfast(load: Load, ports: Sequence[int], broker_port: int, folder: Path) -> AsyncIterator[int]:
    """The gateway as ``make bench`` runs it: durable journal, Sparkplug with ledger marks, metrics; nothing switched off."""
    document = folder / "site.yaml"
    told = site(load, ports, broker_port, free_port(), folder) | {"connections": connections(load, ports, stamped=False)}
    document.write_text(json.dumps(told))
    async with running((sys.executable, "-m", "gateway", "run", str(document)), folder, {}) as pid:
        yield pid


def _holdfast_version() -> str:
    done = subprocess.run(("git", "-C", str(ROOT), "describe", "--always", "--dirty"), capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


PRODUCTS: Final = {
    product.name: product
    for product in (
        Product("holdfast", holdfast, _holdfast_version),
        Product("thingsboard", thingsboard.thingsboard, thingsboard.version, thingsboard.missing),
        Product("thingsboard-sqlite", thingsboard.thingsboard_sqlite, thingsboard.version, thingsboard.missing),
        Product("node-red", node_red.node_red, node_red.version, node_red.missing),
        Product("node-red-topics", node_red.node_red_topics, node_red.version, node_red.missing),
    )
}
USUAL: Final = ("holdfast", "thingsboard", "node-red")
