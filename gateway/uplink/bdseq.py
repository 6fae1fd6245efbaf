"""The number of a Sparkplug session (bdSeq): one more for each CONNECT, modulo 256, kept over restarts in a small file.

It lets a host tell the NDEATH of an old session from that of the current one. A file that is lost, damaged or cannot be
written does no harm beyond that: counting then starts from the wall clock, so that a restart hardly repeats the last number.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from protocols.clock import Clock

log = structlog.get_logger("holdfast.sparkplug")


class BdSeq:
    """``path`` None keeps the number in memory alone."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        kept = _read(path) if path is not None else None
        self._last = (clock.time_ns() // 1_000_000_000 if kept is None else kept) % 256

    def next(self) -> int:
        """The number for a new CONNECT; it is stored before it is used."""
        self._last = (self._last + 1) % 256
        if self._path is not None:
            _write(self._path, self._last)
        return self._last


def _read(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            text = file.read(16)
    except OSError:
        return None
    return int(text) if text.strip().isdigit() else None


def _write(path: Path, number: int) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(f"{number}\n")
        fresh.replace(path)
    except OSError as error:
        log.warning("bdseq_not_stored", path=str(path), trouble=str(error))
