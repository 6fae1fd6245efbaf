"""Release 0.1.0 as it was, from the project's own history: what every later release has to leave something startable for."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FIRST: Final = "de090fd"
"""The commit that was released as 0.1.0."""


def first_release(folder: Path) -> Sequence[str]:
    """Words before a command that make it 0.1.0's; skips where the history is not there."""
    folder.mkdir()
    packed = subprocess.run(
        ["git", "archive", FIRST, "gateway", "holdfast", "protocols"], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    if packed.returncode:
        pytest.skip(f"the history of the project has no commit {FIRST} here: a whole clone is needed to run release 0.1.0")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True, timeout=60)
    return "env", "PYTHONSAFEPATH=1", f"PYTHONPATH={folder}"  # safe: else the working directory's modules come first
