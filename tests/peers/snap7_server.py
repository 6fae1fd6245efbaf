"""A controller by other people as a process: the C++ library Snap7 serves data blocks that this program holds.

``python snap7_server.py LIBRARY PORT``, steered through standard input (see ``program.py``): ``db NUMBER SIZE``, ``area CODE SIZE``,
``set NUMBER OFFSET HEX``, ``get NUMBER OFFSET LENGTH``, ``stick NUMBER OFFSET HEX`` (acknowledges writes and changes nothing there),
``seen`` (the requests' items since this was last asked). Everything that goes over the network is Snap7's.
"""

from __future__ import annotations

import ctypes
import socket
import sys
import time
from typing import Any, Final

DB: Final = 5
"""Snap7's code of the area of data blocks (srvAreaDB)."""
LOCAL_PORT: Final = 1
"""Snap7's parameter p_u16_LocalPort."""
WRITTEN: Final = 0x00040000
"""Snap7's event evcDataWrite."""
PATIENCE_S: Final = 8.0


class Event(ctypes.Structure):
    """TSrvEvent of snap7.h."""

    _fields_ = (
        ("time", ctypes.c_longlong),
        ("sender", ctypes.c_int),
        ("code", ctypes.c_uint32),
        ("result", ctypes.c_uint16),
        *((f"parameter{at}", ctypes.c_uint16) for at in range(1, 5)),
    )


CALLBACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(Event), ctypes.c_int)


class Server:
    """The memory, and Snap7's server that shows it."""

    def __init__(self, library: str) -> None:
        self._snap7 = ctypes.CDLL(library)
        self._snap7.Srv_Create.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._snap7.Srv_Create())
        self.blocks: dict[int, Any] = {}  # Any: arrays of c_char of any length
        self._stuck: list[tuple[int, int, bytes]] = []
        self.seen: list[str] = []
        self._on_event, self._on_read = CALLBACK(self._event), CALLBACK(self._read)
        self._snap7.Srv_SetEventsCallback(self._handle, self._on_event, None)
        self._snap7.Srv_SetReadEventsCallback(self._handle, self._on_read, None)

    def _event(self, user: object, event: Any, size: int) -> None:  # Any: a pointer to an Event
        if event.contents.code == WRITTEN:
            self.seen.append("write")
            for number, offset, content in self._stuck:
                self.put(number, offset, content)

    def _read(self, user: object, event: Any, size: int) -> None:  # Any: as above
        self.seen.append("read")

    def start(self, port: int) -> int:
        """Serve at ``port``, any free one for 0; the port."""
        if port == 0:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
        self._snap7.Srv_SetParam(self._handle, LOCAL_PORT, ctypes.byref(ctypes.c_uint16(port)))
        end = time.monotonic() + PATIENCE_S
        while self._snap7.Srv_StartTo(self._handle, b"127.0.0.1"):
            if time.monotonic() > end:
                raise RuntimeError(f"Snap7 cannot listen at port {port}")
            time.sleep(0.05)
        return port

    def add(self, area: int, number: int, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        code = self._snap7.Srv_RegisterArea(self._handle, area, ctypes.c_uint16(number), ctypes.byref(block), size)
        if code:
            raise ValueError(f"Snap7 does not take area {area}, number {number}: 0x{code:x}")
        self.blocks[number if area == DB else -area] = block

    def put(self, number: int, offset: int, content: bytes) -> None:
        ctypes.memmove(ctypes.addressof(self.blocks[number]) + offset, content, len(content))

    def do(self, words: list[str]) -> str:
        """Carry out one command; what is said after ``ok``."""
        numbers = [int(word) for word in words[1:3]]
        match words[0]:
            case "db":
                self.add(DB, *numbers)
            case "area":
                self.add(numbers[0], 0, numbers[1])
            case "set":
                self.put(numbers[0], numbers[1], bytes.fromhex(words[3]))
            case "get":
                return str(self.blocks[numbers[0]].raw[numbers[1] : numbers[1] + int(words[3])].hex())
            case "stick":
                self._stuck.append((numbers[0], numbers[1], bytes.fromhex(words[3])))
                self.put(*self._stuck[-1])
            case "seen":
                told, self.seen = self.seen, []
                return " ".join(told)
            case other:
                raise ValueError(f"what is {other}?")
        return ""


def main(library: str, port: int) -> None:
    server = Server(library)
    say(f"ready {server.start(port)}")
    for line in sys.stdin:
        try:
            say(f"ok {server.do(line.split())}")
        except (ValueError, LookupError, TypeError) as error:
            say(f"error {error}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
