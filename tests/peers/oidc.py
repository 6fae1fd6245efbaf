"""oidc-provider (panva's, a certified OpenID provider) over https: see ``node/oidc_provider.mjs``. And one that signs anything."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.peers.certificates import Pki
from tests.peers.program import Program

SCRIPT: Final = Path(__file__).parent / "node" / "oidc_provider.mjs"
CLIENT: Final = "holdfast-edge"
SECRET: Final = "what the provider and the gateway share"


class OidcProvider(Program):
    """``async with OidcProvider(pki, redirect_uri, users) as provider``; it signs in whoever ``login_hint`` names."""

    def __init__(self, pki: Pki, redirect_uri: str, users: dict[str, dict[str, Any]]) -> None:  # Any: claims
        node = shutil.which("node")
        assert node is not None, "node is needed: apt install nodejs"
        wish = {
            "cert": str(pki.server.cert_file),
            "key": str(pki.server.key_file),
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uri": redirect_uri,
            "users": users,
        }
        super().__init__(Path(node), str(SCRIPT), json.dumps(wish))

    @property
    def issuer(self) -> str:
        return f"https://localhost:{self.ready[0]}"


Made = Callable[[str], str]


class Forger:
    """A provider on https whose ID tokens are whatever ``token(nonce)`` returns. Small, for it need not be right about anything else."""

    def __init__(self, pki: Pki, keys: dict[str, Any]) -> None:  # Any: JSON
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pki.server.cert_file, pki.server.key_file)
        self._keys = keys
        self._server: asyncio.Server | None = None
        self.issuer = ""
        self.nonce = ""
        self.token: Made = str
        self.raw: dict[str, bytes] = {}
        """Whole answers (HTTP) to requests of a path."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._context)
        self.issuer = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def sent(self, location: str) -> str:
        """Take note of where a browser was sent; the state."""
        asked = parse_qs(urlsplit(location).query)
        self.nonce = asked["nonce"][0]
        return asked["state"][0]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        body = json.dumps(self._told(path)).encode()
        plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
            len(body),
            body,
        )
        writer.write(self.raw.get(path, plain))
        try:
            await writer.drain()
        except ConnectionError:  # whoever asked has heard enough
            return
        writer.close()

    def _told(self, path: str) -> dict[str, Any]:  # Any: JSON
        if path == "/keys":
            return self._keys
        if path == "/token":
            return {"id_token": self.token(self.nonce), "access_token": "a", "token_type": "Bearer"}
        paths = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/keys"}
        return {"issuer": self.issuer, **{name: self.issuer + where for name, where in paths.items()}}
