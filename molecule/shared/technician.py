"""What a scenario's story is told with: the collection's playbooks, run as a technician does, and looks at the machines from outside."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SITE: Final = os.environ["MOLECULE_SCENARIO_NAME"]
SCENARIO: Final = Path(sys.argv[0]).resolve().parent
PATIENCE_S: Final = 400.0
PLAIN: Final = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "PY_COLORS": "0", "ANSIBLE_DISPLAY_FAILED_STDERR": "0"}
"""Molecule has colours, and what failed apart."""
Chapter = Callable[[], None]


def on(host: str, command: str) -> str:
    """What ``command`` says inside a machine, past its network and its SSH."""
    words = [str(ROOT / "tools/machines.py"), "exec", SITE, host, "sh", "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{host}: {command}: {done.stdout} {done.stderr}"
    return done.stdout.strip()


def machine(word: str, host: str) -> None:
    subprocess.run([str(ROOT / "tools/machines.py"), word, SITE, host], check=True)


def started(name: str, *arguments: str) -> list[str]:
    inventory = f"--inventory={SCENARIO / 'inventory'}"
    return ["ansible-playbook", inventory, f"holdfast.gateway.{name}", *arguments]


def play(name: str, *arguments: str, fails: bool = False) -> str:
    words = started(name, *arguments)
    say(shlex.join(words[2:]))
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | PLAIN)
    (ROOT / f"build/molecule/{SITE}-{name}.log").write_text(done.stdout + done.stderr)
    assert (done.returncode != 0) is fails, f"exit code {done.returncode}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return " ".join(re.sub(r"\s+", " ", done.stdout).split())


def until(what: str, condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, f"{what}: not within {PATIENCE_S:.0f} s"
        time.sleep(0.5)
    say(what)


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def tell(chapters: Sequence[Chapter], others: Sequence[Chapter], asked: Sequence[str]) -> None:
    """The chapters that are asked for by name, or all but the others."""
    for chapter in (*chapters, *others):
        if chapter.__name__ in asked or (not asked and chapter in chapters):
            say(f"--- {chapter.__name__}: {chapter.__doc__}")
            chapter()
    say("all as it should be")
