"""The samples of the README: the documents check without an error, the Python one reads a server, the shell one posts."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

import protocols.http
from protocols.clock import SystemClock
from protocols.http.check import check_http, check_webhook
from protocols.http.config import Http, Webhook
from protocols.http.session import LEDGER
from protocols.http.webhook import WEBHOOK
from tests.peers.http_server import HttpServer
from tests.peers.leash import leashed

README: Final = (Path(protocols.http.__file__).parent / "README.md").read_text()
SECRET: Final = "canary-readme-secret-0123456789"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def documents() -> list[dict[str, Any]]:  # Any: JSON
    return [one for block in blocks("yaml") for one in yaml.safe_load(block)["connections"]]


def test_every_yaml_sample_is_right() -> None:
    http, webhook = documents()
    assert check_http(msgspec.convert(http, Http)) == []
    assert check_webhook(msgspec.convert(webhook, Webhook)) == []


def test_the_ledger_of_the_readme_is_that_of_the_code() -> None:
    table = README.split("## Quality ledger")[1]
    for status, (quality, _) in LEDGER.items():
        (line,) = [line for line in table.splitlines() if re.match(rf"\|[^|]*\b{status}\b", line) and "Bad" in line]
        assert quality.name.title().replace("_", "") in line.split("|")[2]


async def test_the_python_sample_reads_a_server(tmp_path: Path) -> None:
    (sample,) = blocks("python")
    async with HttpServer() as server:
        await server.put("/api/values", '{"power": 20250.5}')
        sample = sample.replace("http://192.0.2.7:8080", f"http://127.0.0.1:{server.port}").replace(
            '"devices"', '"allow_local": True, "devices"'
        )
        (tmp_path / "sample.py").write_text(sample)
        command = leashed(sys.executable, "-u", str(tmp_path / "sample.py"))
        environment = {**os.environ, "PYTHONPATH": str(Path(protocols.http.__file__).parents[2])}
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        process.kill()
        await process.wait()
        process.stdout.feed_eof()
    assert line.split() == [b"meter-1", b"[20250.5]", b"[0]"]


async def test_the_shell_sample_posts(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """curl and openssl share no code with what takes and proves the message."""
    assert shutil.which("curl"), "curl is needed: apt install curl"
    (sample,) = blocks("sh")
    document = documents()[1]
    (tmp_path / "secret").write_text(SECRET)
    document |= {"listen_host": "127.0.0.1", "listen_port": free_port(), "devices": document["devices"][:1]}
    document["auth"]["secret"]["path"] = str(tmp_path / "secret")
    del document["tls"]
    options = msgspec.convert(document, Webhook)
    environment = {**os.environ, "SECRET": SECRET, "URL": f"http://127.0.0.1:{options.listen_port}/hooks/press-1"}
    script = sample.replace("$(uuidgen)", "0b6f")  # util-linux has it on most systems, in a package of its own on Debian
    async with WEBHOOK.open(options, clock=SystemClock()) as session:
        batches = session.batches()
        post = asyncio.ensure_future(
            asyncio.to_thread(subprocess.run, ["sh", "-c", script], env=environment, capture_output=True, timeout=20)
        )
        async with asyncio.timeout(20):
            seen = {
                batch.device.tags[int(batch.tag[0])].name: batch.value.tolist() for batch in [await anext(batches), await anext(batches)]
            }
            rest = asyncio.ensure_future(anext(batches))  # what was taken is answered when more is asked for
            done = await post
            rest.cancel()
            await asyncio.gather(rest, return_exceptions=True)
    assert seen == {"count": [7], "force": [12.5]}
    assert done.stdout.split() == [b"202"], done.stderr
