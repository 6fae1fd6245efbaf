"""``python -m tests.bench.entry``: what it costs to be known. Requests a second of one operation, with each way to prove who asks.

The gateway is a process of its own, with nothing to scan; eight connections ask as fast as they are answered, over TLS 1.3.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.peers.holdfast import Holdfast, until
from tests.peers.opcua import free_port

CONNECTIONS: Final = 8
SECONDS: Final = 5.0
PASSWORD: Final = "nine yellow boats at dawn"
_EXCHANGE = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(exchange: _EXCHANGE, request: bytes) -> tuple[int, bytes]:
    reader, writer = exchange
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
    return int(head.split(b" ")[1]), await reader.readexactly(length)


async def rate(port: int, context: ssl.SSLContext, request: bytes, wanted: int, connections: int = CONNECTIONS) -> float:
    """Requests a second."""
    count = 0

    async def one() -> None:
        nonlocal count
        exchange = await asyncio.open_connection("localhost", port, ssl=context)
        while time.monotonic() < end:
            status, _ = await ask(exchange, request)
            assert status == wanted, status
            count += 1
        exchange[1].close()

    end = time.monotonic() + SECONDS
    await asyncio.gather(*(one() for _ in range(connections)))
    return count / SECONDS


def request(path: str, header: str = "", body: str = "") -> bytes:
    method = "POST" if body else "GET"
    more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}{more}\r\n{body}".encode()


async def measure(site: Path, port: int) -> None:
    context = ssl.create_default_context(cafile=site.parent / "journal/state/authority/ca.pem")
    token = _holdfast(site, "token", "issue", "--role", "viewer", str(site), "bench")
    _holdfast(site, "user", "add", "--role", "viewer", str(site), "anna", text=PASSWORD)
    exchange = await asyncio.open_connection("localhost", port, ssl=context)
    body = json.dumps({"name": "anna", "password": PASSWORD})
    _, answer = await ask(exchange, request("/api/v1/session", body=body))
    session = json.loads(answer)["token"]
    exchange[1].close()
    cookie = f"Cookie: __Host-holdfast_session={session}\r\n"
    cases = {
        "nobody, /healthz": (request("/healthz"), 200),
        "nobody, refused": (request("/api/v1/gateway"), 401),
        "a token": (request("/api/v1/gateway", f"Authorization: Bearer {token}\r\n"), 200),
        "a session": (request("/api/v1/gateway", f"Authorization: Bearer {session}\r\n"), 200),
        "a cookie": (request("/api/v1/gateway", cookie), 200),
        "a made-up token": (request("/api/v1/gateway", f"Authorization: Bearer hft_{'x' * 43}\r\n"), 401),
    }
    for name, (asked, wanted) in cases.items():
        sys.stdout.write(f"{name:20} {await rate(port, context, asked, wanted):8.0f} requests/s\n")
    signed_in = await rate(port, context, request("/api/v1/session", body=body), 201, connections=2)  # more at once are locked out
    sys.stdout.write(f"{'sign in':20} {signed_in:8.1f} requests/s\n")


def _holdfast(site: Path, *words: str, text: str = "") -> str:
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60, cwd=site.parents[0]).stdout.strip()


def main() -> None:
    port = free_port()
    limits = {"requests_per_s": 1e6}
    site = {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "edge"},
        "journal": {"path": "journal"},
        "api": {"port": port, "limits": limits},
    }
    with tempfile.TemporaryDirectory(prefix="bench-entry-") as folder:
        gateway = Holdfast(Path(folder), site)
        gateway.start()
        try:
            until("the API serves", lambda: "api_serving" in gateway.log_file.read_text())
            asyncio.run(measure(gateway.site_file, port))
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
