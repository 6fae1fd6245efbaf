"""A plain HTTP server on node's own http module (another parser than ours); see ``http_server.mjs`` for what it can do."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any, Final

from tests.peers.certificates import Pair
from tests.peers.program import Program

SOURCE: Final = Path(__file__).with_suffix(".mjs")


class HttpServer(Program):
    """``async with HttpServer() as server``: on 127.0.0.1 at ``server.port``; https with a certificate."""

    def __init__(self, *, tls: Pair | None = None, client_ca: Path | None = None, port: int = 0) -> None:
        node = shutil.which("node")
        assert node is not None, "node is needed: apt install nodejs"
        certificates = [str(tls.cert_file), str(tls.key_file)] if tls is not None else []
        self._arguments = certificates + ([str(client_ca)] if client_ca is not None else [])
        self._node = node
        super().__init__(Path(node), str(SOURCE), str(port), *self._arguments)
        self.port = port

    async def start(self) -> None:
        await super().start()
        self.port = int(self.ready[0])
        self._command = (self._node, str(SOURCE), str(self.port), *self._arguments)  # started again, it is found at the same place

    async def put(self, path: str, content: str | bytes, media_type: str = "application/json") -> None:
        """What a GET of ``path`` brings."""
        raw = content.encode() if isinstance(content, str) else content
        await self.ask(f"put {path} {media_type} {base64.b64encode(raw).decode()}")

    async def field(self, path: str, name: str, value: Any) -> None:  # Any: JSON
        """Change one number of a flat JSON document, and no other byte of it."""
        await self.ask(f"field {path} {name} {_one_word(value)}")

    async def stick(self, path: str, field: str) -> None:
        """Writes to this field are acknowledged and change nothing."""
        await self.ask(f"stick {path} {field}")

    async def rule(self, path: str, **rule: Any) -> None:  # Any: JSON
        """``kind``: silent; status (with status, headers); etag; modified (with date)."""
        await self.ask(f"rule {path} {_one_word(rule)}")

    async def heal(self, path: str) -> None:
        await self.ask(f"heal {path}")

    async def unchanged(self, path: str) -> int:
        """How often ``path`` was answered 304."""
        return int((await self.ask(f"unchanged {path}"))[0])

    async def auth(self, **auth: Any) -> None:  # Any: JSON
        """``kind``: none, basic, digest (algorithms, qop, uses, basicToo), bearer, key."""
        await self.ask(f"auth {_one_word(auth)}")

    async def requests(self) -> list[str]:
        """``read`` or ``write`` for each request since this was last asked."""
        return await self.ask("requests")

    async def connections(self) -> tuple[int, int]:
        """How many are open, and how many there have been."""
        open_now, ever = await self.ask("connections")
        return int(open_now), int(ever)


def _one_word(value: Any) -> str:  # Any: JSON
    """JSON without a blank in it."""
    return json.dumps(value, separators=(",", ":")).replace(" ", "\\u0020")
