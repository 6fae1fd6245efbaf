"""Runs Molecule's scenarios, one after the other, each in a site of its own: ``python -m tools.molecule [SCENARIO ...]``; without, all.

What a scenario installs is made first: a bundle of this tree, signed with a key that is made for the tests. It ends with 1 where a
scenario failed, and names it; the machines of a failed one stay (``tools/machines.py list``), to be looked at.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
MADE: Final = ROOT / "build/molecule"
KEY: Final = MADE / "key.pem"
SMALL: Final = ("--arch", "x86_64", "--without-debian", "--without-controller", "--output", str(MADE / "holdfast.bundle"))
WHOLE: Final = ("--arch", "x86_64", "--output", str(MADE / "offline.bundle"))
QUICK: Final = ("--arch", "x86_64", "--python", "3.13", "--without-debian", "--without-controller", "--output", str(MADE / "quick.bundle"))
BUNDLES: Final = {"quick": (QUICK,), "offline": (WHOLE,), "broker": (), "upgrade": ()}
"""What a scenario needs; the others need the small one. A scenario with a ``bundles.py`` makes its own by that."""
NOT_OF_ALL: Final = ("shared", "quick")


def scenarios() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml") if path.parent.name not in NOT_OF_ALL)


def bundle(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "tools.bundle", *words], check=True, cwd=ROOT)


def prepare(names: Sequence[str]) -> None:
    MADE.mkdir(parents=True, exist_ok=True)
    suites = ("trixie",) if set(names) == {"quick"} else ()
    subprocess.run([str(ROOT / "tools/machines.py"), "roots", *suites], check=True, cwd=ROOT)
    if not KEY.exists():
        bundle("key", str(KEY))
    for words in dict.fromkeys(each for name in names for each in BUNDLES.get(name, (SMALL,))):
        bundle("make", "--key", str(KEY), *words)
    for name in names:  # here, where there is a network: a site has none
        own = ROOT / "molecule" / name / "bundles.py"
        if own.exists():
            subprocess.run([sys.executable, str(own), str(MADE / name)], check=True, cwd=ROOT)


def run(name: str) -> bool:
    """Whether the scenario succeeded."""
    words = [str(ROOT / "tools/machines.py"), "run", name, "molecule"]
    subprocess.run([*words, "reset", "-s", name], check=True, cwd=ROOT)
    return subprocess.run([*words, "test", "-s", name], check=False, cwd=ROOT).returncode == 0


def main(asked: Sequence[str]) -> int:
    names = list(asked) or scenarios()
    if unknown := [name for name in names if not (ROOT / "molecule" / name / "molecule.yml").exists()]:
        sys.exit(f"no scenario {', '.join(unknown)}; there are {', '.join([*scenarios(), 'quick'])}")
    prepare(names)
    said = []
    for name in names:
        began = time.monotonic()
        said.append((name, "passed" if run(name) else "FAILED", time.monotonic() - began))
    for name, result, took_s in said:
        sys.stdout.write(f"{name:14} {result} in {took_s:.0f} s\n")
    return int(any(result == "FAILED" for _, result, _ in said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
