"""node-opcua as an OPC UA client (see node/opcua_client.mjs), for tests of the gateway's OPC UA server."""

from __future__ import annotations

import asyncio
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, Any, Final

from tests.peers.leash import start
from tests.peers.program import PeerFailed

SCRIPT: Final = Path(__file__).parent / "node" / "opcua_client.mjs"
ANSWER_S: Final = 60.0


class Refused(Exception):
    """The client says that what it was asked for did not work."""


class OpcUaClient:
    """``launch`` and ``end`` are for fixtures; it belongs to no event loop. ``pki`` is its folder of certificates."""

    def __init__(self, pki: Path, **wish: Any) -> None:  # Any: JSON, as the script takes it
        self._wish = {"pki": str(pki), **wish}
        self.pki = pki
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes] = queue.Queue()

    def launch(self) -> None:
        pipe = subprocess.PIPE
        self._process = start(shutil.which("node") or "node", str(SCRIPT), json.dumps(self._wish), stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        if self._line().split() != [b"ready"]:
            raise PeerFailed("node-opcua did not start")

    def end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def ask_now(self, do: str, **wanted: Any) -> Any:  # Any: JSON
        """What the client answers. Raises Refused, PeerFailed."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **wanted}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._line()
        verdict, _, rest = line.decode().partition(" ")
        if verdict != "ok":
            raise Refused(rest.strip())
        return json.loads(rest)

    async def ask(self, do: str, **wanted: Any) -> Any:  # Any: as above
        return await asyncio.to_thread(lambda: self.ask_now(do, **wanted))

    def _line(self) -> bytes:
        try:
            line = self._lines.get(timeout=ANSWER_S)
        except queue.Empty:
            raise PeerFailed(f"node-opcua: no answer within {ANSWER_S:g} s") from None
        if not line:
            raise PeerFailed("node-opcua ended")
        return line


def _read(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Every line into ``lines``, an empty one at the end. What the libraries print between is left out."""
    for line in pipe:
        if line.split(b" ")[0].strip() in (b"ready", b"ok", b"error"):
            lines.put(line)
    lines.put(b"")
