"""A quiet mosquitto that knows one user: thingsboard-gateway, who must not hear itself.

The gateway subscribes to topics that it also publishes to (a ThingsBoard server does not send them back). Nobody else
has a name, and everybody else may do everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.peers.mosquitto import free_port

TOKEN: Final = "bench-access-token"
ACL: Final = f"""topic readwrite #
user {TOKEN}
topic write v1/#
topic read v1/devices/me/rpc/response/+
"""
QUIET: Final = """listener {port} 127.0.0.1
allow_anonymous true
acl_file {acl}
log_type error
user root
max_queued_messages 0
max_inflight_messages 0
"""


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[int]:
    """Its port. Nothing is logged, kept or limited: it is not what is measured."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise RuntimeError("mosquitto is not installed: install the package mosquitto")
    port = free_port()
    acl, settings = folder / "mosquitto.acl", folder / "mosquitto.conf"
    acl.write_text(ACL)
    settings.write_text(QUIET.format(port=port, acl=acl))
    process = await asyncio.create_subprocess_exec(program, "-c", str(settings), stderr=asyncio.subprocess.DEVNULL)
    try:
        await _answers(port)
        yield port
    finally:
        process.kill()
        await process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
