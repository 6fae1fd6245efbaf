"""Wheels for machines that are not this one, each of them the very file that was locked.

The lock holds every library with its extras for every Python. uv says which of them a target needs (read from pyproject.toml, held to
the lock's versions), pip fetches their wheels for the target's Python and machine, and each file is held against the lock's hashes and
the target's tags again, for the cache is a folder like any other. A library without a wheel for a target stops the bundle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from tools.bundle_archive import Content, digest

GLIBC: Final = 36
"""Debian 12 has glibc 2.36: what is built for an older one or for this one runs on it and on what came later."""
UV_ARCH: Final = "{arch}-manylinux_2_36"


class CannotMake(Exception):
    """The bundle cannot be made; the text says what is missing and what to do."""


@dataclass(frozen=True, order=True)
class Target:
    python: str
    arch: str

    @property
    def name(self) -> str:
        return f"{self.python}-{self.arch}"

    @property
    def platforms(self) -> list[str]:
        """The best first."""
        named = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        return [
            each
            for minor in range(GLIBC, 4, -1)
            for each in (f"manylinux_2_{minor}_{self.arch}", *([f"{named[minor]}_{self.arch}"] if minor in named else []))
        ] + [f"linux_{self.arch}"]

    @property
    def tags(self) -> set[Tag]:
        """Every tag that a wheel for this target may have."""
        version = tuple(int(part) for part in self.python.split("."))
        interpreter = "cp" + self.python.replace(".", "")
        return {*cpython_tags(version, platforms=self.platforms), *compatible_tags(version, interpreter, self.platforms)}


@dataclass(frozen=True)
class Pinned:
    name: str
    version: str
    hashes: frozenset[str]


@dataclass(frozen=True)
class Wanted:
    """What is resolved together, and the locks it is held to."""

    requirements: tuple[str, ...]
    """Arguments for uv: ``pyproject.toml`` and its extras, or the text of requirements."""
    text: str
    locks: tuple[Path, ...]


def read_lock(path: Path) -> dict[tuple[str, str], Pinned]:
    """(name, version) to what the lock says of it."""
    found: dict[tuple[str, str], Pinned] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", path.read_text(), flags=re.MULTILINE):
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\\n]+)", entry)
        if match:
            name = canonicalize_name(match[1])
            found[name, match[2]] = Pinned(name, match[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)))
    return found


def resolved(wanted: Wanted, target: Target, cache: Path) -> list[Pinned]:
    """What ``wanted`` needs on ``target``, at the locks' versions; kept in the cache by all that it depends on."""
    locked = {key: each for lock in wanted.locks for key, each in read_lock(lock).items()}
    depends = [
        *(lock.read_bytes() for lock in wanted.locks),
        *(Path(each).read_bytes() for each in wanted.requirements if each.endswith(".toml")),
    ]
    key = digest(b"\0".join([*depends, repr((wanted.requirements, wanted.text, target)).encode()]))
    kept = cache / "resolved" / f"{key}.txt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(_compile(wanted, target))
    pairs = [
        (canonicalize_name(name), version) for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", kept.read_text(), re.MULTILINE)
    ]
    foreign = [f"{name}=={version}" for name, version in pairs if (name, version) not in locked]
    if foreign:
        raise CannotMake(f"{foreign[0]} is needed for {target.name} and is not in {wanted.locks[0].name}: lock it first (make lock)")
    return [locked[pair] for pair in sorted(pairs)]


def _compile(wanted: Wanted, target: Target) -> str:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--python-version", target.python, "--python-platform", UV_ARCH.format(arch=target.arch)]
    for lock in wanted.locks:
        command += ["--constraint", str(lock)]
    said = subprocess.run([*command, *wanted.requirements], input=wanted.text, capture_output=True, text=True, check=False, timeout=600)
    if said.returncode:
        raise CannotMake(f"what {target.name} needs cannot be resolved with {wanted.locks[0].name}: {said.stderr.strip()[-800:]}")
    return said.stdout


def fetched(pinned: Sequence[Pinned], target: Target, cache: Path, *, offline: bool = False) -> dict[str, Path]:
    """File name to the wheel of each of ``pinned``, from the cache or by pip; raises CannotMake for one that there is not."""
    folder = cache / "wheels" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    found = _present(pinned, target, folder)
    missing = [each for each in pinned if each not in found]
    if missing and offline:
        raise CannotMake(
            f"{missing[0].name}=={missing[0].version} for {target.name} is not in {folder}: make the bundle once without --offline"
        )
    if missing:
        _download(missing, target, folder)
        found = _present(pinned, target, folder)
    for each in pinned:
        if each not in found:
            raise CannotMake(f"{each.name}=={each.version}: no wheel in {folder} is right for {target.name} and has a hash of the lock")
    return {path.name: path for path in found.values()}


def _present(pinned: Iterable[Pinned], target: Target, folder: Path) -> dict[Pinned, Path]:
    wanted = {(each.name, Version(each.version)): each for each in pinned}
    tags = target.tags
    found: dict[Pinned, Path] = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, of_wheel = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise CannotMake(f"{path}: {error}: remove this file") from error
        each = wanted.get((name, version))
        if each is not None and tags & of_wheel and digest(path) in each.hashes:
            found[each] = path
    return found


def _download(pinned: Iterable[Pinned], target: Target, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, "wanted.txt")
        listed.write_text("".join(_line(each.name, each.version, each.hashes) for each in pinned))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", target.python]
        command += [word for platform in target.platforms for word in ("--platform", platform)]
        command += ["--dest", str(folder), "--requirement", str(listed)]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if said.returncode:
        raise CannotMake(f"a wheel for {target.name} cannot be had (there may be none for this machine): {said.stderr.strip()[-800:]}")


def _line(name: str, version: str, hashes: Iterable[str]) -> str:
    return " ".join([f"{name}=={version}", *(f"--hash=sha256:{each}" for each in sorted(hashes))]) + "\n"


def requirements(wheels: Mapping[str, Path]) -> bytes:
    """requirements.txt for pip's --require-hashes: these very files."""
    lines = []
    for file, path in wheels.items():
        name, version, _, _ = parse_wheel_filename(file)
        lines.append(_line(name, str(version), [digest(path)]))
    return "".join(sorted(lines)).encode()


def with_requirements(wheels: Mapping[str, Path]) -> dict[str, Content]:
    """The members of a tar of wheels."""
    return {**wheels, "requirements.txt": requirements(wheels)}


def build(root: Path, files: Iterable[str], scratch: Path, epoch: int) -> Path:
    """Holdfast's own wheel, out of a copy of ``files``, so that nothing left over in the tree gets into it."""
    source, target = scratch / "source", scratch / "built"
    for name in files:
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy)
        copy.chmod(0o644)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    said = subprocess.run(
        [*command, "--wheel-dir", str(target), f"{source}/"], capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    if said.returncode:
        raise CannotMake(f"the wheel of Holdfast cannot be built: {(said.stderr + said.stdout).strip()[-800:]}")
    return next(target.glob("holdfast-*.whl"))
