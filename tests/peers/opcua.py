"""node-opcua as an OPC UA server (see node/opcua_server.mjs), for tests that need a peer that is not ours."""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from tests.peers.leash import start
from tests.peers.program import PeerFailed

SCRIPT: Final = Path(__file__).parent / "node" / "opcua_server.mjs"
URI: Final = "http://example.com/plant"
START_S: Final = 60.0
"""node-opcua reads the whole standard address space when it starts: seconds of CPU on a busy machine."""
ANSWER_S: Final = 20.0


class OpcUaServer:
    """The devices one and two, at ``server.endpoint``. It may be stopped and started again.

    It belongs to no event loop, so that tests with loops of their own can share one: ``launch`` and ``end`` are for fixtures, ``async
    with`` for a test that wants a server of its own.
    """

    def __init__(self, **wish: Any) -> None:  # Any: JSON, as the script takes it
        self.port = wish.pop("port", 0) or free_port()
        self._wish = wish
        self._pki = Path(wish.pop("pki", "") or tempfile.mkdtemp(prefix="opcua-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes] = queue.Queue()

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}/plant"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def certificate(self) -> bytes:
        """Its own, DER."""
        return pem_to_der((self._pki / "own" / "certs" / "certificate.pem").read_text())

    def launch(self) -> None:
        wish = {"port": self.port, "pki": str(self._pki), **self._wish}
        pipe = subprocess.PIPE
        self._process = start(shutil.which("node") or "node", str(SCRIPT), json.dumps(wish), stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self._lines = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        if self._line("start", START_S).split()[:1] != ["ready"]:
            raise PeerFailed("node-opcua did not start")

    def end(self) -> None:
        """At once, as a power cut would. Twice is fine."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    async def start(self) -> None:
        await asyncio.to_thread(self.launch)

    async def stop(self) -> None:
        await asyncio.to_thread(self.end)

    def close(self) -> None:
        self.end()
        shutil.rmtree(self._pki, ignore_errors=True)

    async def ask(self, command: str) -> list[str]:
        """Send ``command``; the words after ``ok``. Raises PeerFailed for any other answer."""
        return await asyncio.to_thread(self._ask, command)

    def _ask(self, command: str) -> list[str]:
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(command.encode() + b"\n")
        process.stdin.flush()
        words = self._line(command, ANSWER_S).split()
        if words[:1] != ["ok"]:
            raise PeerFailed(f"{command[:80]!r} was answered {' '.join(words)!r}")
        return words[1:]

    def _line(self, doing: str, patience_s: float) -> str:
        try:
            line = self._lines.get(timeout=patience_s)
        except queue.Empty:
            raise PeerFailed(f"node-opcua: no answer within {patience_s:g} s ({doing[:80]})") from None
        if not line:
            raise PeerFailed(f"node-opcua ended ({doing[:80]})")
        return line.decode()

    def wish(self, **more: Any) -> None:  # Any: as above
        """What the next start shall be like."""
        self._wish.update(more)

    async def level(self, device: str, *values: int) -> None:
        """One after another, with no publish between them."""
        await self.ask(" ".join(map(str, ("level", device, *values))))

    async def set(self, name: str, value: object) -> None:
        await self.ask(f"set {name} {json.dumps(value)}")

    async def silent(self, device: str, yes: bool) -> None:
        await self.ask(f"silent {device} {int(yes)}")

    async def event(self, severity: int, message: str) -> None:
        await self.ask(f"event {severity} {message}")

    async def count(self, upto: int, every_ms: int) -> None:
        """LEVEL of device one counts up."""
        await self.ask(f"count {upto} {every_ms}")

    async def requests(self) -> list[str]:
        """``read`` and ``write`` since this was last asked."""
        return await self.ask("requests")

    async def calls(self) -> int:
        return int((await self.ask("calls"))[0])

    async def sessions(self) -> tuple[int, int, int]:
        """Sessions now, sessions created since it runs, subscriptions now."""
        now, created, subscriptions = await self.ask("sessions")
        return int(now), int(created), int(subscriptions)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.close)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server does not run"
        return self._process


def _read(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Every line into ``lines``, an empty one at the end. What the libraries print between is left out."""
    for line in pipe:
        if line.split(b" ")[0].strip() in (b"ready", b"ok", b"error"):
            lines.put(line)
    lines.put(b"")


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port: int = each.getsockname()[1]
        return port


def pem_to_der(text: str) -> bytes:

    body = text.split("-----BEGIN CERTIFICATE-----")[1].split("-----END CERTIFICATE-----")[0]
    return base64.b64decode(body)
