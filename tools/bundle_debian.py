"""A repository of the Debian packages that the roles install, for hosts that reach no mirror.

apt itself chooses, downloads and judges (signed Release, digest of each file), in a state of its own under the cache: the machine's
packages, lists and sources are neither asked nor touched, and root is not needed. The closure is that of a minimal Debian host: what
such a host has already is left out, unless something that is shipped asks for a version of it, for hosts are not all of today.

The names come from ``ansible/roles/packages/vars/main.yml``, which the role reads too, so that no role can ask for a package that no
bundle holds.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tools.bundle_archive import Content, digest
from tools.bundle_wheels import CannotMake

ARCHES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
MINIMAL: Final = ("apt", "ca-certificates", "dbus", "iproute2", "openssh-server", "python3", "systemd", "systemd-sysv")
"""What a host has beside Debian's required packages before a play begins."""
MIRROR: Final = "http://deb.debian.org/debian"
SECURITY: Final = "http://deb.debian.org/debian-security"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
INHERITED: Final = re.compile(r"Acquire::(https?|Check-)")
"""How this machine reaches a mirror (proxies, certificates), and what it thinks of mirrors that stand still."""
VERSIONED: Final = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?::\w+)?\s*\(\s*(=|>=|>>|<<|<=)")


@dataclass(frozen=True)
class Apt:
    """apt with a state of its own."""

    suite: str
    arch: str
    """As Python and the kernel name it."""
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.arch}"

    @property
    def configuration(self) -> Path:
        return self.folder / "apt.conf"

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """What ``command`` says; raises CannotMake with apt's own words."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "APT_CONFIG": str(self.configuration)}
        try:
            said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1800, cwd=cwd)
        except FileNotFoundError as error:
            raise CannotMake(f"{command[0]} is not here: make bundles on Debian, or without Debian packages (--without-debian)") from error
        if said.returncode:
            raise CannotMake(f"{self.name}: {' '.join(command[:2])} failed: {said.stderr.strip()[-800:]}")
        return said.stdout


def names(root: Path) -> list[str]:
    """Every package that a role may install."""
    known = yaml.safe_load((root / "ansible/roles/packages/vars/main.yml").read_text())["packages_known"]
    return sorted({name for each in known.values() for name in each})


def prepare(apt: Apt, mirror: str, security: str, *, offline: bool) -> None:
    """The state is there, and its lists are today's (or those of the last time, offline)."""
    for each in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/trusted.gpg.d", "debs"):
        (apt.folder / each).mkdir(parents=True, exist_ok=True)
    if not KEYRING.exists():
        raise CannotMake(f"{KEYRING} is not here: install debian-archive-keyring, or leave Debian packages out (--without-debian)")
    (apt.folder / "status").touch()
    arch, suite = ARCHES[apt.arch], apt.suite
    option = f"[arch={arch} signed-by={KEYRING}]"
    sources = [f"{mirror} {suite} main", f"{mirror} {suite}-updates main", f"{security} {suite}-security main"]
    (apt.folder / "sources.list").write_text("".join(f"deb {option} {each}\n" for each in sources))
    apt.configuration.write_text(_configuration(apt.folder, arch))
    if offline and any((apt.folder / "state/lists").glob("*Release")):
        return
    if offline:
        raise CannotMake(f"{apt.name}: no package lists in {apt.folder}: make the bundle once without --offline")
    apt.run("apt-get", "update", "--quiet", "--error-on=any")


def _configuration(folder: Path, arch: str) -> str:
    settings = {
        "Dir": "/",
        "Dir::State": f"{folder}/state",
        "Dir::State::status": f"{folder}/status",
        "Dir::State::extended_states": f"{folder}/state/extended_states",
        "Dir::Cache": f"{folder}/cache",
        "Dir::Etc": f"{folder}/etc",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Log": f"{folder}/log",
        "APT::Architecture": arch,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    own = "".join(f'{name} "{value}";\n' for name, value in settings.items())
    machine = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False, timeout=60)
    inherited = [line for line in machine.stdout.splitlines() if INHERITED.match(line)]
    return own + f'APT::Architectures {{ "{arch}"; }};\n' + "".join(f"{line}\n" for line in inherited)


def closure(apt: Apt, wanted: Iterable[str]) -> dict[str, str]:
    """Package to its stanza in the mirror's list: what ``wanted`` needs on a minimal host."""
    base = _chosen(apt, [*_required(apt), *MINIMAL])
    every = _chosen(apt, [*(f"{name}={version}" for name, version in base.items()), *wanted])
    stanzas = _stanzas(apt, every)
    shipped = {name for name in every if name not in base} | {name for name in wanted if name in every}
    while more := {name for each in shipped for name in _versioned(stanzas[each]) if name in every} - shipped:
        shipped |= more
    return {name: stanzas[name] for name in sorted(shipped)}


def _required(apt: Apt) -> list[str]:
    entries = apt.run("apt-cache", "dumpavail").split("\n\n")
    found = {
        match[1]
        for each in entries
        if re.search(r"^(Essential: yes|Priority: required)$", each, re.M) and (match := re.match(r"Package: (\S+)", each))
    }
    return sorted(found)


def _chosen(apt: Apt, wanted: Iterable[str]) -> dict[str, str]:
    """Package to version, as apt would install them on an empty host."""
    said = apt.run("apt-get", "install", "--simulate", "--quiet", "--yes", *wanted)
    return dict(re.findall(r"^Inst (\S+?)(?::\w+)? \((\S+)", said, re.MULTILINE))


def _stanzas(apt: Apt, chosen: Mapping[str, str]) -> dict[str, str]:
    said = apt.run("apt-cache", "show", *(f"{name}={version}" for name, version in chosen.items()))
    return {match[1]: each.strip() for each in said.split("\n\n") if (match := re.match(r"Package: (\S+)", each.strip()))}


def _versioned(stanza: str) -> Iterator[str]:
    """Packages that this one wants in some version, or whose versions it breaks."""
    for line in re.findall(r"^(?:Pre-Depends|Depends|Breaks): (.*)$", stanza, re.MULTILINE):
        yield from (found[1] for found in VERSIONED.finditer(line))


def field(stanza: str, name: str) -> str:
    """A field's value of one line; empty where there is none."""
    found = re.search(rf"^{name}: (.*)$", stanza, re.MULTILINE)
    return found[1] if found else ""


def fetched(apt: Apt, stanzas: Mapping[str, str], *, offline: bool = False) -> dict[str, Path]:
    """File name in the repository to the package's file, from the cache or by apt."""
    folder = apt.folder / "debs"
    files = {name: folder / Path(field(stanza, "Filename")).name for name, stanza in stanzas.items()}
    missing = [name for name, path in files.items() if not _right(path, stanzas[name])]
    if missing and offline:
        raise CannotMake(f"{apt.name}: {missing[0]} is not in {folder}: make the bundle once without --offline")
    if missing:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            scratch = Path(made)
            apt.run("apt-get", "download", "--quiet", *(f"{name}={field(stanzas[name], 'Version')}" for name in missing), cwd=scratch)
            for path in scratch.glob("*.deb"):
                path.rename(folder / re.sub(r"_\d+%3a", "_", path.name))  # apt writes the epoch, the mirror does not
    for name, path in files.items():
        if not _right(path, stanzas[name]):
            raise CannotMake(f"{apt.name}: {path} is not the file that the signed list names; remove it and make the bundle again")
    return {path.name: path for path in files.values()}


def _right(path: Path, stanza: str) -> bool:
    return path.is_file() and digest(path) == field(stanza, "SHA256")


def repository(stanzas: Mapping[str, str], files: Mapping[str, Path]) -> dict[str, Content]:
    """The members of a flat repository: the packages, and Packages, which names them."""
    listed = [re.sub(r"^Filename: .*/", "Filename: ./", stanza, flags=re.MULTILINE) for _, stanza in sorted(stanzas.items())]
    return {**files, "Packages": ("\n\n".join(listed) + "\n").encode()}
