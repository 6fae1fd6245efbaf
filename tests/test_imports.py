"""Every module of ours can be the first that is imported: no two of them wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FIRST: Final = """
import importlib, os, sys, traceback

def first(name):
    "Import a module in a fork of this process, and below a package whatever has not come with it: 1 where that fails."
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        importlib.import_module(name)
        failed = below(name)
    except BaseException:
        failed = 1
        print(f"{name}: {traceback.format_exc(limit=-1)}", flush=True)
    os._exit(failed)

def below(package):
    "Each module of an imported package. One that came with it came as it would have come first: for its package comes before it."
    return max((below(name) if name in sys.modules else abs(first(name)) for name in children.get(package, ())), default=0)

names = sys.argv[1:]
children = {}
for name in names:
    children.setdefault(name.rpartition(".")[0], []).append(name)
for name in names:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] in ("gateway", "holdfast", "protocols")]:
    del sys.modules[name]
sys.exit(first("gateway"))
"""
"""Foreign modules stay imported from one to the next: they cost most of the time, and their circles are not ours."""


def modules() -> list[str]:
    paths = [path for path in (ROOT / "gateway").rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return sorted(name for name in names if not name.endswith(("__main__", "_pb2")))


def test_every_module_can_be_the_first() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # a process with threads should not fork
    command = [sys.executable, "-c", FIRST, *modules()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
