"""An S7 controller on the C++ library Snap7, by other people; see ``snap7_server.py`` for what it can do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.peers.compiled import BUILD, PeerMissing
from tests.peers.program import Program

HERE: Final = Path(__file__).parent
FOLDER: Final = BUILD / "snap7"


def library() -> str:
    """The shared library. Raises PeerMissing."""
    found = sorted(FOLDER.glob("snap7/lib/libsnap7.so"))
    if not found:
        raise PeerMissing("the C++ library Snap7 is missing: make build/peers/snap7/.made")
    return str(found[0])


class Snap7Server(Program):
    """``async with Snap7Server() as server``: S7 on 127.0.0.1 at ``server.port``."""

    def __init__(self) -> None:
        super().__init__(Path(sys.executable), str(HERE / "snap7_server.py"), library(), "0")
        self.port = 0

    async def start(self) -> None:
        await super().start()
        self.port = int(self.ready[0])
        self._command = (*self._command[:-1], str(self.port))  # started again, it is found at the same place

    async def db(self, number: int, size: int) -> None:
        await self.ask(f"db {number} {size}")

    async def set(self, number: int, offset: int, content: bytes) -> None:
        await self.ask(f"set {number} {offset} {content.hex()}")

    async def get(self, number: int, offset: int, length: int) -> bytes:
        return bytes.fromhex("".join(await self.ask(f"get {number} {offset} {length}")))

    async def stick(self, number: int, offset: int, content: bytes) -> None:
        await self.ask(f"stick {number} {offset} {content.hex()}")

    async def seen(self) -> list[str]:
        return await self.ask("seen")
