"""``python -m tests`` runs every test once, tells what every run said whole, and fails when one of them does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SITS: Final = (
    "tests/faults/test_kill.py",
    "tests/faults/test_a.py",
    "tests/faults/journal/test_b.py",
    "tests/fuzz/test_c.py",
    "tests/faults/test_power.py",
    "tests/faults/test_disk_full.py",
    "tests/faults/test_failing_disk.py",
    "tests/faults/test_slow_disk.py",
    "tests/contract/test_i.py",
    "tests/cases/a-case/test_j.py",
    "tests/bench/peers/test_k.py",
    "tests/gateway/demo/test_l.py",
    "tests/gateway/faces/test_m.py",
    "tests/plugin/test_n.py",
    "tests/gateway/api/test_f.py",
    "tests/gateway/test_g.py",
    "tests/holdfast/test_h.py",
    "tests/later/deep/test_d.py",
    "tests/test_e.py",
)
OF_EACH_RUN: Final = (SITS[0], SITS[1], SITS[-1])
GOOD, BAD = "def test():\n    pass\n", "def test():\n    raise ValueError('broken on purpose')\n"


def every_test(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # plugins take most of the time
    command = (sys.executable, "-m", "tests", *words)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def tree(folder: Path, broken: tuple[str, ...] = ()) -> None:
    """Tests at every kind of place, in a project of their own."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests"]\naddopts = "-ra --import-mode=importlib"\n')
    for name in SITS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(BAD if name in broken else GOOD)


def test_each_test_runs_once_wherever_it_lies(tmp_path: Path) -> None:
    tree(tmp_path)
    done = every_test(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(re.findall(r"^(tests/\S+\.py) \.", done.stdout, re.MULTILINE)) == sorted(SITS)


def test_whichever_fails_is_named_at_the_end(tmp_path: Path) -> None:
    for name in OF_EACH_RUN:
        tree(tmp_path, (name,))
        done = every_test(tmp_path)
        end = done.stdout.partition("##### all tests")[2]
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"FAILED {name}::test" in end
        assert "1 failed" in end
        assert len(re.findall(r": \d+ (?:passed|failed)", end)) == len(OF_EACH_RUN)


def test_words_are_for_one_run_of_pytest(tmp_path: Path) -> None:
    tree(tmp_path, SITS[1:2])
    done = every_test(tmp_path, "-k", "test_a or test_e", "tests")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 17 deselected" in done.stdout
