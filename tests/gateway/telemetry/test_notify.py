"""What systemd is told, over a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from gateway.tasks import cancel
from gateway.telemetry.notify import notify, pat, watchdog_period_s
from protocols.clock import ManualClock


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    path = tmp_path / "notify"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    return listener


def test_fields_arrive_as_one_datagram(systemd: socket.socket) -> None:
    with systemd:
        notify("READY=1", "STATUS=running")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=running"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_the_abstract_namespace_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"holdfast-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("STOPPING=1")
        assert listener.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(("usec", "pid", "period"), [("10000000", "", 5.0), ("0", "", None), ("", "", None), ("10000000", "1", None)])
def test_the_watchdog_is_patted_at_half_its_time(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, period: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_period_s() == period


async def test_the_watchdog_is_told_again_and_again(systemd: socket.socket) -> None:
    clock = ManualClock()
    with systemd:
        task = asyncio.create_task(pat(clock, 5.0))
        await clock.advance(12.0)
        await cancel(task)
        assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
