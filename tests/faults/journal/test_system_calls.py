"""The kernel refuses the n-th system call of a storing process (strace puts the error there), so that no layer of ours stands between.

This is what proves the tests with a SQLite VFS right: the same must hold where folders are synced, files renamed and the heads
written, which SQLite does not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults import figures
from tests.faults.journal.conftest import Seeded
from tests.faults.journal.crash import ENVIRONMENT, WRITER, hear, judge
from tests.faults.journal.plant import LONG, Witness
from tests.peers.leash import leashed

FAULTS = [
    pytest.param("fsync,fdatasync", "EIO", id="fsync EIO"),
    pytest.param("pwrite64", "EIO", id="pwrite EIO"),
    pytest.param("pwrite64", "ENOSPC", id="pwrite ENOSPC"),
    pytest.param("ftruncate", "EIO", id="ftruncate EIO"),
    pytest.param("unlink", "EIO", id="unlink EIO"),
    pytest.param("mkdir", "ENOSPC", id="mkdir ENOSPC"),
]
"""System calls, and what the kernel says to them."""
LINES = {"fsync,fdatasync": 40, "pwrite64": 15, "ftruncate": 1000, "unlink": 1500, "mkdir": 0}
"""How many lines a writer says for one such call, at most."""
MOST = {"ftruncate": 6, "unlink": 4, "mkdir": 3}
"""How many of them are refused, one a run, where they are few."""
AFTERWARDS = 300
"""Lines that are heard after the error."""
LAST_CALL = 200 if LONG else 40
SAMPLE = 4
"""Calls of each kind that are refused in CI, besides the first."""


def can_inject() -> bool:
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync", "true"]
    return subprocess.run(probe, check=False, capture_output=True, timeout=30).returncode == 0


pytestmark = pytest.mark.skipif(not can_inject(), reason="refusing system calls needs strace, and leave to trace")


@contextlib.asynccontextmanager
async def traced(folder: Path, log: Path, inject: str) -> AsyncIterator[asyncio.StreamReader]:
    """What a storing process says. ``inject`` in strace's words, such as ``fsync:error=EIO:when=3``. It is killed in the end."""
    calls = inject.partition(":")[0]
    process = await asyncio.create_subprocess_exec(
        *leashed("strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={inject}"),
        *(*WRITER, str(folder), "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        pid = int((await process.stdout.readline()).split()[1])
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await process.stdout.read()
            await process.wait()


def refused(log: Path) -> int:
    """How many calls were; only told once the process is gone."""
    return log.read_text().count("(INJECTED)")


@pytest.mark.parametrize(("calls", "error"), FAULTS)
async def test_a_refused_system_call_loses_nothing_confirmed(calls: str, error: str, dice: Seeded, scratch: Path) -> None:
    """The n-th, for every n in a long campaign; then the process is killed, and everything that it had confirmed is there."""
    each = range(1, min(LAST_CALL, MOST.get(calls, LAST_CALL)) + 1)
    cases = each if LONG or len(each) <= SAMPLE else [1, *dice.sample(each[1:], SAMPLE - 1)]
    for n in cases:
        witness = Witness()
        async with traced(scratch / "journal", scratch / "log", f"{calls}:error={error}:when={n}") as output:
            is_open = await listen(output, witness, LINES[calls] * n + AFTERWARDS)
        assert refused(scratch / "log"), f"{n}: the campaign tests nothing"
        assert is_open or not witness.names, "a writer that could not start has confirmed something"
        await judge(scratch / "journal", witness)
        shutil.rmtree(scratch / "journal")
    figures.record("journal.refused-system-calls", seed=dice.begun_with, calls=calls, error=error, refused=len(cases), lost=0)


async def listen(output: asyncio.StreamReader, witness: Witness, lines: int) -> bool:
    """Hear the writer say so much. Whether it could open the journal; where it could, it does not die."""
    is_open = False
    async with asyncio.timeout(60):
        while lines and (line := await output.readline()):
            is_open |= hear(witness, line) == "open"
            lines -= 1
    assert not (lines and is_open), "the writer died by itself"
    return is_open


async def test_while_no_sync_succeeds_nothing_is_confirmed(scratch: Path) -> None:
    """From some moment on every sync fails: after the groups that were on their way no record is confirmed, and none is given."""
    witness = Witness()
    async with traced(scratch / "journal", scratch / "log", "fsync,fdatasync:error=EIO:when=30+") as output:
        heard = 0
        with contextlib.suppress(TimeoutError):
            while heard < 10_000:
                async with asyncio.timeout(3):  # several tries of the journal to store what it has
                    assert hear(witness, await output.readline()) != "", "the writer died by itself"
                heard += 1
        assert heard < 10_000, "records go on to be confirmed"
    assert refused(scratch / "log") >= 3
    assert len(witness.names) > 50
    await judge(scratch / "journal", witness)
