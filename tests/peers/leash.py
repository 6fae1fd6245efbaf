"""Processes that die with the test run that started them, however it ends: a gateway left over would scan the ports of later tests.

The kernel sends them SIGKILL when their parent dies (PR_SET_PDEATHSIG). To the kernel the parent is the *thread* that started them, and
tests start processes in threads of a pool, which ends with its event loop. So all of them are started by threads that live as
long as the run: :func:`start` hands its command to one of its own, :func:`leashed` may only be used in the main thread.

``setpriv`` (util-linux) sets the signal and becomes the program, so the process id is the program's. Where that is missing, the process
ends with 127.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

LEASH: Final = ("setpriv", "--pdeathsig", "KILL", "--")
_starter: Final = ThreadPoolExecutor(1, "starter of processes")
"""Its thread is joined when the interpreter ends, so what runs until then is killed then."""


def leashed(*command: str) -> tuple[str, ...]:
    """``command``, for ``asyncio.create_subprocess_exec`` in an event loop of the main thread."""
    assert threading.current_thread() is threading.main_thread(), "the process would die with this thread"
    return (*LEASH, *command)


def start(
    *command: str,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A process, from whichever thread."""
    return _starter.submit(subprocess.Popen, (*LEASH, *command), stdin=stdin, stdout=stdout, stderr=stderr, env=env).result()
