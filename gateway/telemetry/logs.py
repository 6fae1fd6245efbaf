"""Structured logs: events with fields, one JSON object a line, or aligned text for a person.

A field never holds a secret, because configuration holds references only; and never a control character that a peer
chose, because both renderers escape them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from typing import Final, Literal

import msgspec
import structlog

MOST_TAPPED: Final = 1000
LONGEST_TAPPED: Final = 16 * 1024
CONSOLE_ALONE: Final = {"code"}
"""Fields that open something (a claim code): whoever follows the log from afar does not get them."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Tap:
    """The newest events of the log, as JSON, for whoever follows them: a processor that changes nothing. Any thread may log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[bytes] = deque(maxlen=MOST_TAPPED)
        self._next = 0

    def __call__(self, _logger: object, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        told = {key: "(on the console)" if key in CONSOLE_ALONE else value for key, value in event.items()}
        line = msgspec.json.encode(told, enc_hook=str)
        if len(line) > LONGEST_TAPPED:
            line = msgspec.json.encode({"event": str(event.get("event"))[:1000], "level": event.get("level"), "cut_off_bytes": len(line)})
        with self._lock:
            self._lines.append(line)
            self._next += 1
        return event

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        with self._lock:
            return self._next - len(self._lines)

    def since(self, number: int) -> tuple[list[bytes], int, int]:
        """Events from ``number`` on, the number of the next one, and how many of those asked for are gone."""
        with self._lock:
            first = self._next - len(self._lines)
            return list(self._lines)[max(0, number - first) :], self._next, max(0, first - number)


TAP: Final = Tap()
"""Of this process."""


def configure(level: str, style: Literal["json", "console"]) -> None:
    """Send events of at least ``level`` to standard error. Libraries' own log lines above warning go the same way."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if style == "json":
        renderer: structlog.types.Processor = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        shared.remove(structlog.processors.format_exc_info)
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, TAP, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(message)s", force=True)


def _dumps(event: object, default: object = None) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
