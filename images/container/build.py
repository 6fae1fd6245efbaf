"""Makes what the Containerfile is built from: its folder, with wheels that are the very bytes that requirements.lock names.

``python images/container/build.py FOLDER`` fetches the wheels for the image's Python, whatever Python and processor it runs on, and
writes ``requirements.txt``: the part of the lock that the gateway and the chosen extras need, and the gateway's own wheel, each with its
hash. Then ``podman build FOLDER`` needs no network but for its base. It runs in the environment of development, whose packages say who
needs whom.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
PYTHON: Final = "3.13"
"""Debian 13's."""
EXTRAS: Final = ("graphql", "s7")
"""What the image brings beside the gateway: the page of docs/how-to/run-in-a-container.md says what that weighs, and what stays out."""
UNUSED: Final = frozenset(("faker", "pip", "polyfactory"))
"""What dependencies ask for and the gateway never loads: sqlite-utils could install packages by pip, Litestar make up examples."""
GLIBCS: Final = (17, 28, 34)
"""Debian 13 has 2.41; these are what wheels are made for."""
PARTS: Final = ("gateway", "holdfast", "protocols", "tui", "pyproject.toml", "README.md", "LICENSE")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the folder that the image is built from.")
    parser.add_argument("folder", type=Path, help="where to; what is there is replaced, but for wheels that are the right ones")
    parser.add_argument("--base", default="", help="the image that it is built on, best with its digest (what the Containerfile names)")
    parser.add_argument("--arch", choices=("x86_64", "aarch64"), default="x86_64")
    parser.add_argument("--extras", default=",".join(EXTRAS), help="comma-separated (%(default)s)")
    given = parser.parse_args()
    make(given.folder, given.arch, [name for name in given.extras.split(",") if name])
    told = {"VERSION": version(), "REVISION": revision(), "CREATED": datetime.fromtimestamp(epoch(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    file = given.folder / "Containerfile"
    file.write_text(filled(file.read_text(), {**told, "BASE": given.base} if given.base else told))


def filled(containerfile: str, arguments: Mapping[str, str]) -> str:
    """``containerfile`` with ``arguments`` written out: podman 4.3 keeps a label of an earlier build where only an ARG differs."""
    for name, value in arguments.items():
        containerfile = re.sub(rf"^(ARG {name}=).*$", rf"\g<1>{value}", containerfile, flags=re.MULTILINE).replace(f"${{{name}}}", value)
    return containerfile


def make(folder: Path, arch: str, extras: Iterable[str]) -> None:
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for name in ("Containerfile", "rootfs.py"):
        shutil.copy2(HERE / name, folder / name)
    lock, names = (ROOT / "requirements.lock").read_text(), closure(extras, arch) - UNUSED
    requirements = folder / "requirements.txt"
    requirements.write_text(part_of_the_lock(lock, names | {"pip"}, arch))  # it installs the others, and is left behind in the build stage
    _fetch(requirements, wheels, arch)
    locked = part_of_the_lock(lock, names, arch)
    ours = _own_wheel(folder / "source", wheels)
    requirements.write_text(
        f"{locked}{ours.name.split('-')[0]}=={version()} --hash=sha256:{hashlib.sha256(ours.read_bytes()).hexdigest()}\n"
    )


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def closure(extras: Iterable[str], arch: str) -> set[str]:
    """The packages that ``holdfast`` with ``extras`` needs in the image. Raises PackageNotFoundError where one is not installed here."""
    image = environment(arch)
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [("holdfast", frozenset(extras))]
    while waiting:
        if (one := waiting.pop()) in seen:
            continue
        seen.add(one)
        for text in requires(one[0]) or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({**image, "extra": extra}) for extra in ("", *one[1])):
                waiting.append((canonicalize_name(wanted.name), frozenset(wanted.extras)))
    return {name for name, _ in seen} - {"holdfast"}


def part_of_the_lock(lock: str, names: set[str], arch: str) -> str:
    """The entries of ``lock`` for ``names`` that are for the image, hashes included. Raises ValueError where one is not locked.

    Their markers are judged here and left out: pip would judge them by the Python that it runs on.
    """
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        first, newline, hashes = entry.partition(" \\\n")
        wanted = Requirement(first) if newline else None
        if wanted is not None and (wanted.marker is None or wanted.marker.evaluate(environment(arch))):
            found[canonicalize_name(wanted.name)] = f"{wanted.name}{wanted.specifier}{newline}{hashes}"
    if missing := names - found.keys():
        raise ValueError(f"requirements.lock has no {', '.join(sorted(missing))}: run make lock")
    return "".join(entry for name, entry in found.items() if name in names)


def environment(arch: str) -> dict[str, str]:
    """What markers ask for, of the image."""
    return {
        "extra": "",
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": arch,
    }


def _fetch(requirements: Path, wheels: Path, arch: str) -> None:
    """Wheels for the image; those that are there already and right are not fetched again, all others go."""
    fresh = wheels.with_name("wheels.new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--require-hashes", "--no-deps"]
    command += [
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        PYTHON,
        "--find-links",
        str(wheels),
        "--dest",
        str(fresh),
    ]
    command += [word for minor in GLIBCS for word in ("--platform", f"manylinux_2_{minor}_{arch}")] + [
        "--platform",
        f"manylinux2014_{arch}",
    ]
    subprocess.run([*command, "--requirement", str(requirements)], check=True)
    shutil.rmtree(wheels)
    fresh.rename(wheels)


def _own_wheel(source: Path, wheels: Path) -> Path:
    """The gateway's wheel, from a copy: what an earlier build left in the project does not get in."""
    shutil.rmtree(source, ignore_errors=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(wheels), str(source)], check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())})
    shutil.rmtree(source)
    return next(wheels.glob("holdfast-*.whl"))


def revision() -> str:
    """The last commit, or nothing where this is no git checkout."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def epoch() -> int:
    """The moment that everything in the image bears: SOURCE_DATE_EPOCH, or that of the last commit."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    return int(subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
