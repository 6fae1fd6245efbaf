"""Every module of ours can be the first that is imported: no two of them wait for each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
ALONE: Final = """
import importlib, sys
before = set(sys.modules)
failed = []
for name in sys.argv[1:]:
    for other in set(sys.modules) - before:
        if other.partition(".")[0] in ("gateway", "protocols"):
            del sys.modules[other]
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{name}: {error}")
print("\\n".join(failed))
sys.exit(bool(failed))
"""
"""Foreign modules stay imported from one to the next: they cost most of the time, and their circles are not ours."""


def modules() -> list[str]:
    paths = [path for path in (ROOT / "gateway").rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return sorted(name for name in names if not name.endswith(("__main__", "_pb2")))


def test_every_module_can_be_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE, *modules()], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
