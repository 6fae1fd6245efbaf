"""Makes the bundle, its keys, and judges one: everything that a site without internet needs, in one signed file.

``make bundle KEY=private.pem`` builds ``dist/holdfast-<version>.bundle``; what is downloaded stays in ``build/bundle/cache``, so the
second bundle needs a network only for what is new, and ``--offline`` needs none. The same tree and the same downloads give the same
SHA256SUMS. ``make bundle-key`` makes a key pair. ``python -m tools.bundle verify FILE --key PUBLIC`` judges a bundle with the very code
that the collection uses.

The templates of devices are in Holdfast's wheel; there is no other copy of them in the bundle.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ansible.plugins.module_utils import bundle as format_
from tools import bundle_archive, bundle_collection, bundle_debian, bundle_sbom, bundle_wheels
from tools.bundle_archive import Content
from tools.bundle_debian import Apt
from tools.bundle_wheels import CannotMake, Target

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / "build/bundle/cache"
SUITES: Final = ("bookworm", "trixie")
ARCHES: Final = ("x86_64", "aarch64")
PYTHONS: Final = ("3.11", "3.13")
EXTRAS: Final = ("graphql", "s7")
PACKED: Final = ("gateway", "holdfast", "protocols", "tui", "pyproject.toml", "README.md", "LICENSE")
"""What Holdfast's wheel is built from."""
PASSPHRASE: Final = "HOLDFAST_BUNDLE_PASSPHRASE"


@dataclass
class Making:
    """A bundle on its way: its members, and what bundle.json will say of them."""

    options: argparse.Namespace
    version: str
    epoch: int
    scratch: Path
    files: list[str]
    """Every file of the tree that git knows or would."""
    members: dict[str, Content] = field(default_factory=dict)
    contents: dict[str, object] = field(default_factory=dict)

    def archive(self, name: str, content: dict[str, Content], components: Iterable[bundle_sbom.Component]) -> None:
        """An archive among the members, and its bill of materials."""
        path = self.scratch / "members" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            bundle_archive.write_tar(file, content)
        self.members[name] = path
        self.listed(name, components)

    def listed(self, name: str, components: Iterable[bundle_sbom.Component]) -> None:
        told = {"name": name, "version": self.version}
        sbom = f"sbom/{name.replace('/', '-').removesuffix('.tar').removesuffix('.tar.gz')}.cdx.json"
        self.members[sbom] = bundle_sbom.document(told, components, self.epoch)


def git(*words: str) -> str:
    if not (ROOT / ".git").exists():
        raise CannotMake(f"{ROOT} is no git checkout: bundles are made from one, for git says what belongs to the tree and of when it is")
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# -- parts


def add_wheels(making: Making, own: Path) -> None:
    """For each target one archive: Holdfast, its libraries and pip, with requirements.txt."""
    options = making.options
    extras = [word for each in sorted({*EXTRAS, *(["arrow"] if options.with_arrow else [])}) for word in ("--extra", each)]
    wanted = bundle_wheels.Wanted((str(ROOT / "pyproject.toml"), *extras), "", (ROOT / "requirements.lock",))
    named = {}
    for target in targets(options):
        say(f"wheels for {target.name}")
        found = {own.name: own}
        if not options.without_libraries:
            pinned = bundle_wheels.resolved(wanted, target, options.cache)
            found |= bundle_wheels.fetched(pinned, target, options.cache, offline=options.offline)
        named[target.name] = f"wheels/{target.name}.tar"
        making.archive(named[target.name], bundle_wheels.with_requirements(found), map(bundle_sbom.wheel, found.values()))
    making.contents["wheels"] = named


def add_controller(making: Making) -> None:
    """ansible-core and pip for the machine that plays from."""
    options = making.options
    locks = (ROOT / "molecule/requirements.lock", ROOT / "requirements.lock")
    pip = next(each for (name, _), each in bundle_wheels.read_lock(locks[1]).items() if name == "pip")
    wanted = bundle_wheels.Wanted(("-",), "ansible-core\n", locks[:1])
    named = {}
    for target in targets(options):
        say(f"ansible-core for {target.name}")
        pinned = [*bundle_wheels.resolved(wanted, target, options.cache), pip]
        found = bundle_wheels.fetched(pinned, target, options.cache, offline=options.offline)
        named[target.name] = f"controller/{target.name}.tar"
        making.archive(named[target.name], bundle_wheels.with_requirements(found), map(bundle_sbom.wheel, found.values()))
    making.contents["controller"] = named


def add_debian(making: Making) -> None:
    """For each suite and machine a repository of what the roles install."""
    options = making.options
    wanted = bundle_debian.names(ROOT)
    named = {}
    for apt in (Apt(suite, arch, options.cache / "debian" / f"{suite}-{arch}") for suite in options.suite for arch in options.arch):
        say(f"Debian packages for {apt.name}")
        bundle_debian.prepare(apt, options.mirror, options.security, offline=options.offline)
        stanzas = bundle_debian.closure(apt, wanted)
        files = bundle_debian.fetched(apt, stanzas, offline=options.offline)
        named[apt.name] = f"debian/{apt.name}.tar"
        components = [bundle_sbom.package(stanza, apt.suite) for stanza in stanzas.values()]
        making.archive(named[apt.name], bundle_debian.repository(stanzas, files), components)
    making.contents["debian"] = named


def add_collection(making: Making) -> None:
    name, packed = bundle_collection.build(ROOT, making.files, making.epoch)
    path = f"collection/{name}"
    making.members[path] = packed
    making.listed(path, [bundle_sbom.collection("holdfast.gateway", making.version, bundle_archive.digest(packed))])
    making.contents["collection"] = path


def add_about(making: Making) -> None:
    options = making.options
    about = {
        "product": format_.PRODUCT,
        "format": format_.FORMAT,
        "version": making.version,
        "created": making.epoch,
        "commit": git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", *PACKED, "ansible") else ""),
        "suites": [] if options.without_debian else sorted(options.suite),
        "arches": sorted(options.arch),
        "pythons": sorted(options.python),
        "contents": {
            **making.contents,
            "templates": "in Holdfast's wheel, protocols/templates/data",
            "sbom": sorted(name for name in making.members if name.startswith("sbom/")),
        },
    }
    making.members[format_.ABOUT] = (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()


def targets(options: argparse.Namespace) -> Iterator[Target]:
    yield from (Target(python, arch) for python in options.python for arch in options.arch)


# -- commands


def make(options: argparse.Namespace) -> int:
    key = private_key(options.key)
    version = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct"))
    files = [name for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0") if (ROOT / name).is_file()]
    output = options.output or ROOT / f"dist/holdfast-{version}.bundle"
    options.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=options.cache) as scratch:
        making = Making(options, version, epoch, Path(scratch), files)
        packed = [name for name in files if name.split("/")[0] in PACKED]
        say("Holdfast's wheel")
        add_wheels(making, bundle_wheels.build(ROOT, packed, Path(scratch), epoch))
        if not options.without_controller:
            add_controller(making)
        if not options.without_debian:
            add_debian(making)
        if not options.without_collection:
            add_collection(making)
        add_about(making)
        listed = bundle_archive.write_bundle(output, making.members, key, epoch)
    say(
        f"{output}: {output.stat().st_size} bytes, {len(making.members)} members, SHA-256 of {format_.SUMS} {bundle_archive.digest(listed)}"
    )
    return 0


def verify(options: argparse.Namespace) -> int:
    wanted = format_.Wanted(newer_than=options.newer_than, allow_downgrade=options.allow_downgrade)
    keys = [str(key) for key in options.key]
    found = (
        format_.unpack(str(options.file), keys, str(options.unpack), wanted)
        if options.unpack
        else format_.inspect(str(options.file), keys, wanted)
    )
    sys.stdout.write(f"{options.file}: holdfast {found.version}, {len(found.sums)} members, all of them as signed with {found.key}\n")
    if found.folder:
        sys.stdout.write(f"{found.folder}\n")
    return 0


def make_key(options: argparse.Namespace) -> int:
    """A new pair: the private key readable for its owner alone, the public one beside it; neither overwrites anything."""
    public = options.private.with_suffix(".pub.pem")
    for path in (options.private, public):
        if path.exists():
            raise CannotMake(f"{path} is there already: name another file, or move the old key away")
    key = Ed25519PrivateKey.generate()
    encryption = _encryption()
    with _fresh(options.private, 0o600) as descriptor:
        os.write(descriptor, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with _fresh(public, 0o644) as descriptor:
        os.write(descriptor, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    say(f"{options.private}: private, keep it where bundles are made, and a copy in a safe")
    say(f"{public}: public, give it to every controller, on another way than the bundle")
    say(f"SHA-256 of the public key: {format_.fingerprint(key.public_key())}")
    return 0


@contextmanager
def _fresh(path: Path, mode: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(descriptor, mode)
        yield descriptor
    finally:
        os.close(descriptor)


def _encryption() -> KeySerializationEncryption:
    """By the passphrase of the environment, or of a person at a terminal; an empty one leaves the key as it is."""
    words = os.environ.get(PASSPHRASE)
    if words is None and sys.stdin.isatty():
        words = getpass.getpass("Passphrase for the private key (empty: none): ")
        if words and words != getpass.getpass("Again: "):
            raise CannotMake("the two passphrases differ: begin again")
    return BestAvailableEncryption(words.encode()) if words else NoEncryption()


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key that signs; raises CannotMake where the file is none, or readable for others."""
    try:
        text = path.read_bytes()
        loose = path.stat().st_mode & 0o077
    except OSError as error:
        raise CannotMake(f"{path}: the private key cannot be read: {error.strerror}; `make bundle-key` makes one") from error
    if loose:
        raise CannotMake(f"{path}: others may read this private key; chmod 600 it")
    try:
        key = load_pem_private_key(text, _passphrase(path) if b"ENCRYPTED" in text else None)
    except ValueError as error:
        raise CannotMake(f"{path}: this is no private key, or the passphrase is wrong") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CannotMake(f"{path}: this is no Ed25519 key; `make bundle-key` makes one")
    return key


def _passphrase(path: Path) -> bytes:
    words = os.environ.get(PASSPHRASE)
    if words is None and sys.stdin.isatty():
        words = getpass.getpass(f"Passphrase for {path}: ")
    if not words:
        raise CannotMake(f"{path} has a passphrase: give it in the environment as {PASSPHRASE}, or at a terminal")
    return words.encode()


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.bundle", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="build and sign dist/holdfast-<version>.bundle")
    making.set_defaults(command=make)
    making.add_argument("--key", type=Path, required=True, help="private key (PEM, mode 0600)")
    making.add_argument("--output", type=Path, help="another file to write")
    making.add_argument("--cache", type=Path, default=CACHE, help="where downloads are kept")
    making.add_argument("--suite", action="append", choices=SUITES, help="only for this Debian (again for another)")
    making.add_argument("--arch", action="append", choices=ARCHES, help="only for this machine (again for another)")
    making.add_argument("--python", action="append", choices=PYTHONS, help="only for this Python (again for another)")
    making.add_argument("--mirror", default=bundle_debian.MIRROR, help="Debian mirror")
    making.add_argument("--security", default=bundle_debian.SECURITY, help="mirror of Debian's security updates")
    making.add_argument("--with-arrow", action="store_true", help="also pyarrow (large), for exports of history as Parquet")
    making.add_argument("--offline", action="store_true", help="only what is in the cache")
    for part in ("debian", "controller", "collection", "libraries"):
        making.add_argument(f"--without-{part}", action="store_true", help=f"leave {part} out")
    verifying = commands.add_parser("verify", help="judge a bundle, and copy it to a folder if wanted")
    verifying.set_defaults(command=verify)
    verifying.add_argument("file", type=Path)
    verifying.add_argument("--key", type=Path, action="append", required=True, help="public key (again for another that may have signed)")
    verifying.add_argument("--unpack", type=Path, help="a private folder to copy what was verified to")
    verifying.add_argument("--newer-than", default="", help="refuse an older version than this")
    verifying.add_argument("--allow-downgrade", action="store_true", help="take an older one all the same")
    keys = commands.add_parser("key", help="make a key pair: PRIVATE and PRIVATE's name with .pub.pem")
    keys.set_defaults(command=make_key)
    keys.add_argument("private", type=Path)
    return parser


def main(words: Sequence[str]) -> int:
    """Exit code: 0 done, 1 it cannot be made or is refused (a sentence says why), 2 wrong words."""
    options = arguments().parse_args(words)
    for name, every in (("suite", SUITES), ("arch", ARCHES), ("python", PYTHONS)):
        if hasattr(options, name):
            setattr(options, name, getattr(options, name) or list(every))
    try:
        return int(options.command(options))
    except (CannotMake, format_.Refused) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
