"""Makes ``folder-0.1.0.tar.xz`` anew: what release 0.1.0 leaves on the disk when it is killed. ``python -m tests.gateway.releases.make``.

The real release runs on a field in C, with an uplink whose broker is not there, so that everything waits. It is not made again by any test:
that release will never write anything else.
"""

from __future__ import annotations

import asyncio
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from gateway import control
from gateway.questions import Stat
from tests.faults.releases import first_release
from tests.peers.fast import ROUND, FastModbus
from tests.peers.holdfast import Holdfast

PACKED: Final = Path(__file__).parent / "folder-0.1.0.tar.xz"
RECORDS: Final = 60


def site(port: int) -> dict[str, Any]:  # Any: JSON
    device = {"name": "meter", "unit_id": 1, "scan_s": 0.05, "tags": [{"name": "round", "at": f"holding:{ROUND}", "kind": "uint64"}]}
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "gw"},
        "journal": {"path": "./journal", "commit_window_ms": 10},
        "connections": [{"name": "line", "type": "modbus-tcp", "host": "127.0.0.1", "port": port, "devices": [device]}],
        "uplinks": [{"name": "cloud", "type": "sparkplug", "host": "127.0.0.1", "port": 1}],
        "outage_budget_s": 0,
    }


async def make(folder: Path) -> None:
    async with FastModbus(ports=1) as field:
        gateway = Holdfast(folder / "gateway", site(field.ports[0]), prefix=first_release(folder / "old"))
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.command, "token", "issue", str(gateway.site_file), "ci", "--role", "viewer")
        while (await _appended(gateway.folder / "journal")) < RECORDS:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)
        await asyncio.to_thread(gateway.kill)
    left = [path for path in sorted((folder / "gateway" / "journal").rglob("*")) if path.is_file() and path.name not in ("lock", "reserve")]
    with tarfile.open(PACKED, "w:xz") as tar:
        for path in left:
            tar.add(path, str(path.relative_to(folder / "gateway")), filter=_plain)


async def _appended(journal: Path) -> int:
    async for line in control.ask(journal, Stat()):
        return int(line["lanes"]["telemetry"]["appended"])
    return 0


def _plain(told: tarfile.TarInfo) -> tarfile.TarInfo:
    told.uid = told.gid = 0
    told.uname = told.gname = ""
    return told


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(make(Path(place)))
    print(json.dumps({"made": str(PACKED), "bytes": PACKED.stat().st_size}))  # noqa: T201 - for whoever runs it
