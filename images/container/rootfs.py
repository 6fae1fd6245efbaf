"""Lays out the root file system of the image: Debian's Python and what that needs to run, out of the Debian it is run in.

``python3 rootfs.py TARGET``, in the build stage. Packages are followed by their dependencies, as dpkg knows them, except for those
that only their installation needs; of programs Python alone is taken. So there is no shell, no apt and no file with setuid or setgid. What
each package is stays told in ``/var/lib/dpkg/status.d``, where scanners for known weaknesses look, and its copyright in
``/usr/share/doc``.
"""

from __future__ import annotations

import compileall
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

WANTED: Final = ("base-files", "libstdc++6", "netbase", "python3")
"""What the image is made of: libraries in wheels expect that of C++ on the system."""
INSTALLING: Final = frozenset(("awk", "debconf", "dpkg", "readline-common"))
"""Needed by the scripts of packages, which do not run here, or by a person at a terminal."""
LEFT: Final = re.compile(
    r"/usr/s?bin/(?!python3[.0-9]*$)|/usr/share/doc/(?!.*/copyright$|[^/]+$)"
    r"|/usr/share/(applications|base-files|binfmts|bug|dict|doc-base|gcc|gdb|info|lintian|locale|man|menu|perl5|pixmaps|readline)/"
    r"|/usr/lib/([a-z0-9_]+-linux-gnu/gconv|binfmt\.d|tmpfiles\.d|valgrind)/|/usr/(games|include|src)/"
    r"|/etc/(apt|default|dpkg|profile|skel|update-motd\.d)|/var/(backups|cache|spool|mail|local|opt)/|/(boot|home|root)/"
)
"""Files that nothing reads at run time."""
DIRECTORIES: Final = {"dev": 0o755, "etc/holdfast": 0o755, "proc": 0o755, "run": 0o755, "sys": 0o755, "tmp": 0o1777}
FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nholdfast:x:10001:10001:Holdfast:/var/lib/holdfast:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ndialout:x:20:holdfast\nholdfast:x:10001:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}

Stanza = dict[str, str]
"""What dpkg knows of a package, field by field; ``""`` is the whole text."""


def main(target: Path) -> None:
    packages = installed(Path("/var/lib/dpkg/status").read_text())
    for name in needed(WANTED, packages):
        _take(name, packages[name], target)
    for name, text in FILES.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
    for name, mode in DIRECTORIES.items():
        (target / name).mkdir(parents=True, exist_ok=True)
        (target / name).chmod(mode)
    _compile(target)
    if privileged := [str(path) for path in target.rglob("*") if _is_privileged(path)]:
        sys.exit(f"rootfs: these files would give more rights to whoever runs them: {', '.join(privileged)}")


def installed(status: str) -> dict[str, Stanza]:
    """Packages by name, and by the names of what they provide."""
    packages: dict[str, Stanza] = {}
    for text in status.split("\n\n"):
        stanza: Stanza = {"": text, **dict(re.findall(r"^([A-Za-z-]+): (.*)$", text, re.MULTILINE))}
        if stanza.get("Status", "").endswith(" installed"):
            packages[stanza["Package"]] = stanza
            for name in _names(stanza.get("Provides", "")):
                packages.setdefault(name[0], stanza)
    return packages


def needed(wanted: Iterable[str], packages: dict[str, Stanza]) -> list[str]:
    """``wanted`` and what they depend on, each once, by name."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        stanza = packages[waiting.pop()]
        if stanza["Package"] in found:
            continue
        found.add(stanza["Package"])
        for choice in _names(f"{stanza.get('Pre-Depends', '')}, {stanza.get('Depends', '')}"):
            if not INSTALLING.intersection(choice):
                waiting.append(next(name for name in choice if name in packages))
    return sorted(found)


def _names(relations: str) -> Iterator[list[str]]:
    """The names in a field such as ``a (>= 1), b | c``: one list for each thing that is asked for."""
    for relation in relations.split(","):
        if names := [choice.split("(")[0].split(":")[0].strip() for choice in relation.split("|") if choice.strip()]:
            yield names


def _take(name: str, stanza: Stanza, target: Path) -> None:
    info = Path("/var/lib/dpkg/info")
    listed = next(path for path in (info / f"{name}:{stanza['Architecture']}.list", info / f"{name}.list") if path.exists())
    for line in sorted(listed.read_text().splitlines()):
        path = Path(line)
        if line not in ("", "/.") and not LEFT.match(f"{line}/" if path.is_dir() and not path.is_symlink() else line):
            _copy(path, target / line.lstrip("/"))
    told = target / "var/lib/dpkg/status.d" / name
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(stanza[""].strip() + "\n")


def _copy(path: Path, to: Path) -> None:
    """One file, link or directory, with its mode. What the base was stripped of, such as documentation, is not there to be taken."""
    if path.is_symlink():
        to.parent.mkdir(parents=True, exist_ok=True)
        to.unlink(missing_ok=True)
        to.symlink_to(path.readlink())
    elif path.is_dir():
        to.mkdir(parents=True, exist_ok=True)
        to.chmod(stat.S_IMODE(path.stat().st_mode))
    elif path.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)


def _compile(target: Path) -> None:
    """Byte code of the standard library, trusted by its hash: nothing can write it later, and times are those of the build."""
    whole = compileall.compile_dir(
        target / "usr/lib", maxlevels=20, quiet=1, stripdir=str(target), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )
    if not whole:
        sys.exit("rootfs: the standard library could not be compiled")


def _is_privileged(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and bool(path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
