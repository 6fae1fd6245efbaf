"""CoAP by others: libcoap's server and client, and two devices on aiocoap's server (``coap_device.py``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.peers.leash import leashed, start
from tests.peers.program import PATIENCE_S, PeerFailed

SERVER: Final = "coap-server-notls"
CLIENT: Final = "coap-client-notls"


def free_port() -> int:
    """A port that is free for UDP and TCP alike, and the one after it (aiocoap and libcoap count TLS as one more)."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port))
                third.bind(("127.0.0.1", port + 1))
                return port
    raise PeerFailed("no port is free")


class Steered:
    """A Python program that is told what to do by one line at a time, and answers by one.

    It belongs to no event loop, so that one process can serve the tests of a module; what it is told takes a millisecond.
    """

    def __init__(self, program: str, options: Any) -> None:  # Any: JSON
        self._command = (sys.executable, str(Path(__file__).with_name(program)), json.dumps(options))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        if self._process is None:
            self._process = start(*self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if self._line() != ["ready"]:
                raise PeerFailed(f"{self._command[1]} did not start")

    def stop(self) -> None:
        """End it at once, as a power cut would. Twice is fine."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait(PATIENCE_S)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ask(self, command: str) -> list[str]:
        """Send ``command``; the words after ``ok``. Raises PeerFailed for any other answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        words = self._line()
        if words[:1] != ["ok"]:
            raise PeerFailed(f"{command[:80]!r} was answered {' '.join(words)!r}")
        return words[1:]

    def _line(self) -> list[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().split()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class CoapDevices(Steered):
    """``peer = CoapDevices({"one": {"port": 1, "scheme": "coap"}, ...})``. Other keys: oscore, ca_file, cert_file, key_file."""

    def __init__(self, devices: dict[str, dict[str, Any]]) -> None:  # Any: JSON
        super().__init__("coap_device.py", devices)

    def set(self, device: str, path: str, content: bytes, content_format: int = 0) -> None:
        self.ask(f"set {device} {path} {content_format} {content.hex()}")

    def silent(self, device: str, silent: bool) -> None:
        self.ask(f"silent {device} {int(silent)}")

    def requests(self, device: str) -> list[str]:
        return self.ask(f"requests {device}")

    def observers(self, device: str, path: str) -> int:
        return int(self.ask(f"observers {device} {path}")[0])


class CoapPushers(Steered):
    """Devices that push (``coap_pusher.py``), with aiocoap's credentials: ``CoapPushers({"coap://host/*": {...}})``."""

    def __init__(self, credentials: dict[str, Any] | None = None) -> None:  # Any: JSON
        super().__init__("coap_pusher.py", credentials or {})

    def set(self, uri: str, content: bytes, content_format: int = 0) -> None:
        self.ask(f"set {uri} {content_format} {content.hex()}")

    def once(self, uri: str, content: bytes, content_format: int = 0) -> str:
        """The response code, such as ``2.04``."""
        return self.ask(f"once {uri} {content_format} {content.hex()}")[0]


def write_context(folder: Path, *, sender: str, recipient: str, secret: str, salt: str = "") -> Path:
    """A security context as aiocoap reads it; the ids are the peer's view."""
    folder.mkdir(parents=True)
    settings = {"sender-id_hex": sender, "recipient-id_hex": recipient, "secret_hex": secret, "salt_hex": salt}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


class LibcoapServer:
    """libcoap's example server: ``/``, ``/time`` (observable), ``/async?SECONDS``, ``/example_data``, and what is put to it."""

    def __init__(self, port: int = 0, *options: str) -> None:
        self.port = port or free_port()
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (shutil.which(SERVER) or SERVER, "-A", "127.0.0.1", "-p", str(self.port), "-d", "100", "-v", "1", *self._options)
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*leashed(*command), stdin=quiet, stdout=quiet, stderr=quiet)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
                    return
                if self._process.returncode is not None:
                    raise PeerFailed(f"{SERVER} ended")
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()


async def coap_client(url: str, *options: str, content: bytes | None = None, wait_s: float = 5.0) -> str:
    """Run libcoap's client once: what it prints. ``options`` as its manual has them: ``-m put``, ``-N``, ``-b 64``."""
    words = [shutil.which(CLIENT) or CLIENT, "-B", f"{wait_s:g}", "-v", "6", *options]
    if content is not None:
        words += ["-f", "-"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*leashed(*words, url), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(PATIENCE_S + wait_s):
        out, _ = await process.communicate(content)
    return out.decode(errors="replace")
