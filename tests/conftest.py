"""What all tests share: logs where pytest shows them, what the machine can do, and an honest count of what was skipped.

Tests that need root, loop devices or a foreign program skip with a reason; the end of a run names each reason with its
count, and ``HOLDFAST_SKIPS_ALLOWED=0`` turns any skip into a failure, so that CI cannot pass by skipping.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import settings

from tests.peers.compiled import compiled

SKIPS_ALLOWED: Final = "HOLDFAST_SKIPS_ALLOWED"


def pytest_configure(config: pytest.Config) -> None:
    """Structured logs go through the standard library, so that a failing test shows its own; no input has to be judged within 200 ms."""
    settings.register_profile("holdfast", parent=settings(), deadline=None)  # Hypothesis' own limit: a busy machine breaks it
    settings.load_profile("holdfast")
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason, count in _skips(terminalreporter).most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    allowed, reporter = os.environ.get(SKIPS_ALLOWED), session.config.pluginmanager.get_plugin("terminalreporter")
    if allowed is None or reporter is None or session.exitstatus:
        return
    skipped = _skips(reporter).total()
    if skipped > int(allowed):
        reporter.write_line(f"{skipped} tests were skipped, {SKIPS_ALLOWED}={allowed}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skips(reporter: pytest.TerminalReporter) -> Counter[str]:
    reports = reporter.stats.get("skipped", [])
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports if isinstance(report.longrepr, tuple))


@pytest.fixture(autouse=True)
def _logs_stay_as_they_were() -> Iterator[None]:
    """A command that is run in this process sends logs where its user wants them: not those of the next test."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.get_config() != before:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports of 127.0.0.1 that nobody listened on a moment ago, each given once."""
    given: set[int] = set()

    def pick() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in given:
                given.add(port)
                return port

    return pick


@pytest.fixture(scope="session")
def libmodbus_program() -> Path:
    """The server on libmodbus, compiled once; a test that asks for it fails with the package to install."""
    return compiled("libmodbus_server.c", "libmodbus")
