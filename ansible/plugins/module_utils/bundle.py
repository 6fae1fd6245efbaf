# Copyright the Holdfast contributors
# SPDX-License-Identifier: Apache-2.0
"""The format of a bundle, and how one is opened: nothing in it is used that the signature does not cover.

A bundle is one tar file without compression. Its first member is SHA256SUMS (digest and path of every other member), its second
SHA256SUMS.sig, the raw Ed25519 signature of the first; bundle.json follows, then the rest. So openssl, tar and sha256sum can judge it too.

The signature is judged before anything else is read. Then each member is hashed while it is copied into a private folder, and only
those copies are used, so that a file that changes between the check and the use changes nothing. The tar is read by rules far
stricter than tar's own: each header must be, byte for byte, the one that we would write, for headers are under no signature. Hence
no links, no devices, no odd paths, no extensions, and not one byte of the file that may be changed unseen.

Only the standard library and cryptography are used (ansible-core brings it), for this runs on the controller as a part of a module.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
except ImportError as missing:  # the module says so in its own way
    CRYPTOGRAPHY: ImportError | None = missing
else:
    CRYPTOGRAPHY = None

PRODUCT: Final = "holdfast"
FORMAT: Final = 1
SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.sig"
ABOUT: Final = "bundle.json"
BLOCK: Final = 512
CHUNK: Final = 1 << 20
SIGNATURE_SIZE: Final = 64
END: Final = b"\0" * (2 * BLOCK)
PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*(?:/[A-Za-z0-9][A-Za-z0-9._+~-]*)*")
LINE: Final = re.compile(r"([0-9a-f]{64})  (\S+)")
VERSION: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6}){0,5})(?:(a|b|rc)(\d{1,6}))?(?:\.post(\d{1,6}))?(?:\.dev(\d{1,6}))?")
STALE: Final = 24 * 3600
"""Seconds after which a half copied folder is that of a run that was killed."""


@dataclass(frozen=True)
class Limits:
    """How much a file may claim before it is believed."""

    sums: int = 1 << 20
    about: int = 1 << 20
    members: int = 2000
    member: int = 4 << 30
    whole: int = 16 << 30
    path: int = 100
    key: int = 16 << 10


class Refused(Exception):
    """The bundle, a key or a folder is not to be used; the text says what, where and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What the bundle must be good for."""

    newer_than: str = ""
    """The version that is there; a bundle with an older one is refused."""
    allow_downgrade: bool = False
    suites: Sequence[str] = ()
    arches: Sequence[str] = ()
    pythons: Sequence[str] = ()


@dataclass(frozen=True)
class Opened:
    """A bundle that was verified."""

    about: dict[str, Any]  # Any: JSON
    sums: dict[str, str]
    digest: str
    """SHA-256 of SHA256SUMS, and so the name of everything in the bundle."""
    key: str
    """The file of the key that signed it."""
    folder: str = ""
    """Where the members were copied to; empty when they were only verified."""
    changed: bool = False
    """Whether they were copied just now."""

    @property
    def version(self) -> str:
        return str(self.about["version"])

    @property
    def files(self) -> dict[str, str]:
        """Member to the verified copy of it."""
        return {name: str(Path(self.folder, name)) for name in self.sums} if self.folder else {}


@dataclass(frozen=True)
class Member:
    name: str
    size: int
    mtime: int


@dataclass
class Source:
    """A bundle's file that is read once, from its beginning to its end."""

    path: str
    file: BinaryIO
    limits: Limits
    mtime: int | None = None
    about: bytes = b""
    """bundle.json as it was hashed: its copy is written from these bytes."""
    seen: set[str] = field(default_factory=set)

    def exactly(self, count: int, what: str) -> bytes:
        try:
            data = self.file.read(count)
        except OSError as error:
            raise Refused(f"{self.path}: {what} cannot be read: {error.strerror}; copy the bundle to a medium that is well") from error
        if len(data) != count:
            raise Refused(f"{self.path}: the file ends inside {what}: it was cut short; copy the bundle anew")
        return data

    def padding(self, size: int, what: str) -> None:
        rest = -size % BLOCK
        if self.exactly(rest, what) != bytes(rest):
            raise Refused(f"{self.path}: something stands in the padding after {what}: the file was altered; get the bundle anew")


# -- keys and signature


def public_keys(paths: Sequence[str], limits: Limits = Limits()) -> list[tuple[str, Ed25519PublicKey]]:
    """The Ed25519 public keys in these PEM files; raises Refused where one is none."""
    if not paths:
        raise Refused("no public key is given: name the file of the key that the bundle's maker gave you, on another way than the bundle")
    return [(path, _public_key(path, limits)) for path in paths]


def _public_key(path: str, limits: Limits) -> Ed25519PublicKey:
    try:
        with Path(path).open("rb") as file:
            text = file.read(limits.key + 1)
    except OSError as error:
        raise Refused(f"{path}: the public key cannot be read: {error.strerror}; name a file that is there") from error
    if b"PRIVATE KEY" in text:
        raise Refused(f"{path}: this is a private key; give the public one, and keep the private one where bundles are made")
    try:
        key = load_pem_public_key(text[: limits.key])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused(f"{path}: this is no public key in PEM form; `make bundle-key` writes one") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Refused(f"{path}: this is no Ed25519 key; `make bundle-key` writes one")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's DER form, as `openssl pkey -pubin -outform DER | sha256sum` has it."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _signer(path: str, sums: bytes, signature: bytes, keys: Sequence[tuple[str, Ed25519PublicKey]]) -> str:
    """The file of the key that signed; raises Refused when none did."""
    for name, key in keys:
        with contextlib.suppress(InvalidSignature):
            key.verify(signature, sums)
            return name
    told = ", ".join(f"{name} (SHA-256 {fingerprint(key)[:16]}...)" for name, key in keys)
    raise Refused(
        f"{path}: {SUMS} is not signed with {told}: the bundle was altered, or made by somebody else; "
        "get it anew, and ask its maker which key signs; nothing in it was used"
    )


# -- the tar


def header(name: str, size: int, mtime: int) -> bytes:
    """The one header that a member of this name, size and time may have: ustar, mode 0644, owned by root, no names."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, mtime, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


KINDS: Final[dict[bytes, str]] = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a pipe",
}


def _member(source: Source) -> Member | None:
    """The next member, or None at the end of the archive; raises Refused for every header that is not the one we write."""
    raw = source.exactly(BLOCK, "a header")
    if raw == bytes(BLOCK):
        if raw + source.file.read(2 * BLOCK) != END:
            raise Refused(f"{source.path}: something stands after the end of the archive: the file was altered; get the bundle anew")
        return None
    try:
        found = tarfile.TarInfo.frombuf(raw, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise Refused(f"{source.path}: this is no bundle, or it is damaged: a header of the tar cannot be read; get it anew") from error
    _judge_header(source, found, raw)
    source.seen.add(found.name)
    return Member(found.name, found.size, int(found.mtime))


def _judge_header(source: Source, found: tarfile.TarInfo, raw: bytes) -> None:
    where = f"{source.path}: member {found.name[:100]!r}"
    if found.type != tarfile.REGTYPE:
        raise Refused(f"{where} is {KINDS.get(found.type, 'an extension of tar')}, and a bundle holds plain files alone; do not use it")
    if not PATH.fullmatch(found.name) or len(found.name) > source.limits.path:
        raise Refused(f"{where} has a path that leads elsewhere or is none of ours; do not use this file")
    if found.name in source.seen:
        raise Refused(f"{where} is in it twice; do not use this file")
    if found.size > source.limits.member or len(source.seen) >= source.limits.members:
        raise Refused(f"{where} is beyond the limits ({found.size} bytes, member {len(source.seen) + 1}); do not use this file")
    mtime = int(found.mtime) if source.mtime is None else source.mtime
    try:
        ours = header(found.name, found.size, mtime)
    except ValueError:  # a number that no header of ours can hold
        ours = b""
    if raw != ours:
        raise Refused(f"{where} has a header that no bundle has: the file was altered or packed by something else; get the bundle anew")
    source.mtime = mtime


def _small(source: Source, name: str, limit: int) -> bytes:
    """The next member, which must be ``name`` and small enough to be held in memory."""
    member = _member(source)
    if member is None or member.name != name:
        there = "the archive ends" if member is None else f"it is {member.name}"
        raise Refused(
            f"{source.path}: {name} is wanted as member {len(source.seen) or 1}, and {there}: this is no bundle, or has no signature"
        )
    if member.size > limit:
        raise Refused(f"{source.path}: {name} has {member.size} bytes, and at most {limit} are believed; do not use this file")
    data = source.exactly(member.size, name)
    source.padding(member.size, name)
    return data


def _sums(path: str, text: bytes, limits: Limits) -> dict[str, str]:
    """Member to digest, out of SHA256SUMS, which is sorted by path and says each once."""
    found: dict[str, str] = {}
    last = ""
    lines = text.decode("ascii", "replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line.removesuffix("\n")) if line.endswith("\n") else None
        wrong = match is None or not PATH.fullmatch(match[2]) or len(match[2]) > limits.path or match[2] in (SUMS, SIGNATURE)
        if match is None or wrong:
            raise Refused(f"{path}: {SUMS} line {number} is no line of digest and path: the bundle's maker has to make it anew")
        if match[2] <= last:
            raise Refused(f"{path}: {SUMS} line {number} ({match[2]}) is listed twice or out of order: the maker has to make it anew")
        last = match[2]
        found[last] = match[1]
    if ABOUT not in found:
        raise Refused(f"{path}: {SUMS} does not list {ABOUT}: the bundle's maker has to make it anew")
    return found


# -- what it says of itself


def version_key(text: str) -> tuple[Any, ...]:  # Any: numbers and tuples of them
    """Versions in the order of PEP 440, as far as ours go: 1.2 < 1.2.1.dev1 < 1.2.1a1 < 1.2.1rc1 < 1.2.1 < 1.2.1.post1."""
    match = VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no version such as 1.2.3 or 1.2.3rc1")
    numbers = [int(part) for part in match[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    early = match[5] is not None and match[2] is None and match[4] is None
    before = ("",) if early else (match[2], int(match[3])) if match[2] else ("z",)
    after = int(match[4]) if match[4] else -1
    development = (0, int(match[5])) if match[5] else (1, 0)
    return tuple(numbers), before, after, development


def _about(source: Source, data: bytes) -> dict[str, Any]:  # Any: JSON
    """bundle.json, of our product and format; the signature was right, so a fault in it is the maker's."""
    try:
        about = json.loads(data)
    except ValueError as error:
        raise Refused(f"{source.path}: {ABOUT} is no JSON: the bundle's maker has to make it anew") from error
    if not isinstance(about, dict) or about.get("product") != PRODUCT:
        product = about.get("product") if isinstance(about, dict) else None
        raise Refused(f"{source.path}: this is a bundle of {str(product)[:40]!r}, not of {PRODUCT!r}; give the bundle of {PRODUCT}")
    if about.get("format") != FORMAT:
        raise Refused(
            f"{source.path}: its format is {str(about.get('format'))[:20]}, and this collection knows {FORMAT}: "
            "use the collection that lies in the bundle's folder collection/"
        )
    lists = ("suites", "arches", "pythons")
    if not all(isinstance(about.get(name), list) and all(isinstance(each, str) for each in about[name]) for name in lists):
        raise Refused(f"{source.path}: {ABOUT} does not say its suites, arches and pythons: the bundle's maker has to make it anew")
    if about.get("created") != source.mtime:
        raise Refused(f"{source.path}: the times of its members are not that of {ABOUT}: the file was altered; get the bundle anew")
    return about


def judge(path: str, about: Mapping[str, Any], wanted: Wanted) -> None:  # Any: JSON
    """Raises Refused where the bundle is right, but not for this: too old, or without what the hosts are."""
    version = str(about.get("version"))
    try:
        have = version_key(version)
    except ValueError as error:
        raise Refused(f"{path}: {error}: the bundle's maker has to make it anew") from error
    try:
        older = wanted.newer_than != "" and have < version_key(wanted.newer_than)
    except ValueError as error:
        raise Refused(f"newer_than: {error}; give the version that is installed") from error
    if older and not wanted.allow_downgrade:
        raise Refused(
            f"{path}: it holds {version}, which is older than the {wanted.newer_than} that is there; "
            "give a newer bundle, or allow the downgrade by name (allow_downgrade: true)"
        )
    for what, wants in (("suites", wanted.suites), ("arches", wanted.arches), ("pythons", wanted.pythons)):
        for each in wants:
            if each not in about[what]:
                there = ", ".join(about[what]) or "none"
                raise Refused(f"{path}: a host needs {each}, and the bundle's {what} are {there}: give a bundle made with it (make bundle)")


# -- opening


def inspect(path: str, keys: Sequence[str], wanted: Wanted = Wanted(), limits: Limits = Limits()) -> Opened:
    """Verifies the whole bundle and writes nothing; raises Refused."""
    with _reading(path, limits) as source:
        opened, sums = _begin(source, keys, wanted)
        _rest(source, sums, None)
    return opened


def foresee(path: str, keys: Sequence[str], cache: str, wanted: Wanted = Wanted(), limits: Limits = Limits()) -> Opened:
    """What `unpack` would find and do; verifies the whole bundle and writes nothing; raises Refused."""
    found = inspect(path, keys, wanted, limits)
    folder = Path(cache, found.digest)
    whole = is_whole(folder, found.sums)
    return replace(found, folder=str(folder) if whole else "", changed=not whole)


def unpack(path: str, keys: Sequence[str], cache: str, wanted: Wanted = Wanted(), limits: Limits = Limits()) -> Opened:
    """Verifies the bundle while it is copied to a folder of its own under ``cache``; raises Refused.

    A copy that is there already is verified instead, every byte of it; one that is not right is made anew.
    """
    with _reading(path, limits) as source:
        opened, sums = _begin(source, keys, wanted)
        private(Path(cache))
        folder = Path(cache, opened.digest)
        if is_whole(folder, sums):
            return replace(opened, folder=str(folder))
        _room(path, cache, os.fstat(source.file.fileno()).st_size)
        _copy(source, sums, Path(cache), folder)
    return replace(opened, folder=str(folder), changed=True)


@contextlib.contextmanager
def _reading(path: str, limits: Limits) -> Iterator[Source]:
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=CHUNK)
    except OSError as error:
        raise Refused(f"{path}: the bundle cannot be read: {error.strerror}; name a bundle that is there") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path}: this is no file; name a bundle")
        if status.st_size > limits.whole:
            raise Refused(f"{path}: {status.st_size} bytes are more than a bundle has (at most {limits.whole}); do not use this file")
        yield Source(path, file, limits)


def _begin(source: Source, keys: Sequence[str], wanted: Wanted) -> tuple[Opened, dict[str, str]]:
    """Signature first, then the list, then what the bundle says of itself."""
    known = public_keys(keys, source.limits)
    text = _small(source, SUMS, source.limits.sums)
    signature = _small(source, SIGNATURE, SIGNATURE_SIZE)
    signer = _signer(source.path, text, signature, known)
    sums = _sums(source.path, text, source.limits)
    raw = _small(source, ABOUT, source.limits.about)
    if hashlib.sha256(raw).hexdigest() != sums[ABOUT]:
        raise Refused(f"{source.path}: {ABOUT} is not what was signed: the file was altered or damaged; get the bundle anew")
    about = _about(source, raw)
    judge(source.path, about, wanted)
    source.about = raw
    return Opened(about, sums, hashlib.sha256(text).hexdigest(), signer), sums


def _rest(source: Source, sums: Mapping[str, str], folder: Path | None) -> None:
    """Every other member is hashed, and copied when there is a folder; afterwards none is missing."""
    while (member := _member(source)) is not None:
        if member.name not in sums:
            raise Refused(f"{source.path}: member {member.name!r} is not listed in {SUMS}: the file was altered; do not use it")
        target = Path(os.devnull).open("wb") if folder is None else _new(folder / member.name)  # noqa: SIM115  # closed two lines below
        with target:
            digest = _through(source, member, target)
        if digest != sums[member.name]:
            raise Refused(f"{source.path}: {member.name} is not what was signed: the file was altered or damaged; get the bundle anew")
        source.padding(member.size, member.name)
    missing = sorted(set(sums) - source.seen)
    if missing:
        raise Refused(f"{source.path}: {missing[0]} is listed in {SUMS} and is not there ({len(missing)} missing); get the bundle anew")


def _through(source: Source, member: Member, target: BinaryIO) -> str:
    """Copies a member and returns the digest of the very bytes that were written."""
    hasher = hashlib.sha256()
    left = member.size
    while left:
        chunk = source.exactly(min(left, CHUNK), member.name)
        hasher.update(chunk)
        target.write(chunk)
        left -= len(chunk)
    return hasher.hexdigest()


def _new(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def _copy(source: Source, sums: Mapping[str, str], cache: Path, folder: Path) -> None:
    """The members go to a folder with a name of chance, which gets its own name when all are there."""
    _sweep(cache)
    fresh = Path(tempfile.mkdtemp(prefix=".opening-", dir=cache))
    try:
        with _new(fresh / ABOUT) as file:
            file.write(source.about)
        _rest(source, sums, fresh)
        if os.path.lexists(folder) and not is_whole(folder, sums):
            _remove(folder)
        _settle(fresh, folder, sums)
    except OSError as error:
        raise Refused(f"{cache}: the bundle cannot be copied there: {error.strerror}; give a folder with room (cache)") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # after a rename there is none


def _settle(fresh: Path, folder: Path, sums: Mapping[str, str]) -> None:
    try:
        fresh.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_whole(folder, sums):
            raise  # else another run was first, with the same bytes


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sweep(cache: Path) -> None:
    """Half copied folders of runs that were killed go."""
    for entry in os.scandir(cache):
        if entry.name.startswith(".opening-") and entry.stat(follow_symlinks=False).st_mtime < time.time() - STALE:
            shutil.rmtree(entry.path, ignore_errors=True)  # of another run, perhaps, which sweeps too


def _room(path: str, cache: str, size: int) -> None:
    free = shutil.disk_usage(cache).free
    if free < size:
        raise Refused(f"{cache}: {path} needs {size} bytes there, and {free} are free; make room, or give another folder (cache)")


def private(folder: Path) -> None:
    """``folder`` is there, and nobody else may write or read in it; raises Refused."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise Refused(f"{folder}: the folder cannot be made: {error.strerror}; give another (cache)") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise Refused(f"{folder}: somebody else could change what is in it; give a folder of your own with mode 0700 (cache)")


def is_whole(folder: Path, sums: Mapping[str, str]) -> bool:
    """Whether ``folder`` holds every member and nothing else, each with the digest that was signed."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return there == set(sums) and all(_digest(folder / name) == digest for name, digest in sums.items())


def _digest(path: Path) -> str:
    """SHA-256 of a plain file, empty for what is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        return hashlib.file_digest(file, "sha256").hexdigest()
