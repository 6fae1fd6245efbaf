"""A sender of webhooks on node's http and crypto, which share no code with what they are tried on; see ``http_sender.mjs``."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.peers.program import Program

SOURCE: Final = Path(__file__).with_suffix(".mjs")


@dataclass(frozen=True, slots=True)
class Answered:
    """What the receiver answered."""

    status: str
    """The status code, or the error of the connection (``ECONNRESET``)."""
    retry_after: str
    size: int
    server: str


class HttpSender(Program):
    """``async with HttpSender() as sender``."""

    def __init__(self) -> None:
        node = shutil.which("node")
        assert node is not None, "node is needed: apt install nodejs"
        super().__init__(Path(node), str(SOURCE))

    async def document(self, name: str, content: str) -> None:
        await self.ask(f"doc {name} {_packed(content)}")

    async def pace(self, url: str, name: str, *, style: str, secret: str, ms: int = 10) -> None:
        """Post the document again and again, ``ms`` after each answer."""
        await self.ask(f"pace {url} {style} {secret} {name} {ms}")

    async def hush(self, url: str) -> None:
        await self.ask(f"hush {url}")

    async def post(self, url: str, body: str, **order: Any) -> Answered:  # Any: JSON; style, secret, headers, id, skew_s, type, method, ca
        status, retry_after, size, server = await self.ask(f"post {_packed(json.dumps({'url': url, 'body': body, **order}))}")
        return Answered(status, retry_after, int(size), server)


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode() or "="
