"""A bundle is used as it was signed or not at all: the format, every refusal, every byte of a small one, and the real tool."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ansible.plugins.module_utils import bundle
from ansible.plugins.module_utils.bundle import Limits, Refused, Wanted, inspect, unpack
from tools.bundle_archive import Content, sums, write_bundle

ROOT: Final = Path(__file__).parents[2]
TIME: Final = 1_780_000_000
ABOUT: Final[dict[str, Any]] = {  # Any: JSON
    "product": "holdfast",
    "format": 1,
    "version": "0.2.0",
    "created": TIME,
    "suites": ["bookworm"],
    "arches": ["x86_64"],
    "pythons": ["3.11"],
    "contents": {},
}


@dataclass
class Maker:
    """Somebody with a key who makes bundles in a folder."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> str:
        path = self.folder / "public.pem"
        path.write_bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return str(path)

    def members(self, **about: Any) -> dict[str, Content]:  # Any: JSON
        return {
            "bundle.json": json.dumps({**ABOUT, **about}).encode(),
            "debian/bookworm-x86_64.tar": b"packages " * 40,
            "wheels/3.11-x86_64.tar": b"wheels " * 200,
        }

    def bundle(self, **about: Any) -> Path:  # Any: JSON
        path = self.folder / "right.bundle"
        write_bundle(path, self.members(**about), self.key, TIME)
        return path

    def tar(self, entries: list[tuple[tarfile.TarInfo, bytes]], listed: bytes | None = None, *, signed: bool = True) -> Path:
        """A bundle put together by hand: SHA256SUMS with its signature, then ``entries`` as they are."""
        content = {about.name: data for about, data in entries}
        text = sums(content) if listed is None else listed
        first = [(entry("SHA256SUMS", text), text)]
        if signed:
            signature = self.key.sign(text)
            first.append((entry("SHA256SUMS.sig", signature), signature))
        path = self.folder / "by-hand.bundle"
        path.write_bytes(b"".join(packed(about, data) for about, data in [*first, *entries]) + bytes(1024))
        return path

    def entries(self, **about: Any) -> list[tuple[tarfile.TarInfo, bytes]]:  # Any: JSON
        return [(entry(name, data), data) for name, data in self.members(**about).items() if isinstance(data, bytes)]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **attributes: Any) -> tarfile.TarInfo:  # Any: of a header
    about = tarfile.TarInfo(name)
    about.size, about.mtime, about.mode, about.type = len(data), TIME, 0o644, kind
    for key, value in attributes.items():
        setattr(about, key, value)
    return about


def packed(about: tarfile.TarInfo, data: bytes) -> bytes:
    return about.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


# -- what is right


def test_a_right_bundle_is_opened_once_and_verified_again(maker: Maker, tmp_path: Path) -> None:
    """The second opening copies nothing, and what it names is what was signed."""
    path, cache = str(maker.bundle()), str(tmp_path / "cache")
    first = unpack(path, [maker.public], cache)
    again = unpack(path, [maker.public], cache)
    assert (first.changed, again.changed) == (True, False)
    assert first.version == "0.2.0"
    assert first.files == again.files
    assert {name: Path(copy).read_bytes() for name, copy in again.files.items()} == maker.members()
    assert oct(Path(cache).stat().st_mode & 0o777) == "0o700"
    assert first.digest == Path(first.folder).name


def test_any_of_several_keys_may_have_signed(maker: Maker, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert inspect(str(maker.bundle()), [Maker(other).public, maker.public]).key == maker.public


def test_openssl_tar_and_sha256sum_judge_it_too(maker: Maker, tmp_path: Path) -> None:
    """The way of the how-to works with nothing of ours."""
    script = """
        tar -xf "$1" SHA256SUMS SHA256SUMS.sig
        openssl pkeyutl -verify -pubin -inkey "$2" -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
        tar -xf "$1"
        sha256sum --check --strict --quiet SHA256SUMS
    """
    folder = tmp_path / "by-hand"
    folder.mkdir()
    words = ["sh", "-euc", script, "sh", str(maker.bundle()), maker.public]
    said = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert "Verified Successfully" in said.stdout


def test_the_same_members_give_the_same_bytes(maker: Maker) -> None:
    first = maker.bundle().read_bytes()
    assert maker.bundle().read_bytes() == first


def test_a_copy_that_was_altered_is_made_anew(maker: Maker, tmp_path: Path) -> None:
    """The cache is believed no more than the bundle is."""
    path, cache = str(maker.bundle()), tmp_path / "cache"
    target = Path(unpack(path, [maker.public], str(cache)).files["wheels/3.11-x86_64.tar"])
    for alter in (lambda: target.write_bytes(b"other"), target.unlink, (target.parent / "more").touch, lambda: _link(target)):
        alter()
        found = unpack(path, [maker.public], str(cache))
        assert found.changed
        assert target.read_bytes() == maker.members()["wheels/3.11-x86_64.tar"]
        assert sorted(each.name for each in target.parent.iterdir()) == [target.name]


def _link(target: Path) -> None:
    elsewhere = target.parents[2] / "elsewhere"
    elsewhere.write_bytes(target.read_bytes())
    target.unlink()
    target.symlink_to(elsewhere)


def test_what_was_hashed_is_what_is_used(maker: Maker, tmp_path: Path) -> None:
    """A bundle that is swapped after it was opened changes no file that was handed out."""
    path = maker.bundle()
    found = unpack(str(path), [maker.public], str(tmp_path / "cache"))
    path.write_bytes(b"swapped")
    assert hashlib.sha256(Path(found.files["wheels/3.11-x86_64.tar"]).read_bytes()).hexdigest() == found.sums["wheels/3.11-x86_64.tar"]


def test_what_a_killed_run_left_goes(maker: Maker, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for name, age in (("old", 2 * bundle.STALE), ("young", 60)):
        left = cache / f".opening-{name}"
        left.mkdir()
        then = left.stat().st_mtime - age
        os.utime(left, (then, then))
    unpack(str(maker.bundle()), [maker.public], str(cache))
    assert sorted(each.name for each in cache.glob(".opening-*")) == [".opening-young"]


# -- what is refused


def _foreign_key(maker: Maker) -> str:
    folder = maker.folder / "foreign"
    folder.mkdir()
    return Maker(folder).public


def _swapped(maker: Maker) -> Path:
    members = maker.members()
    return maker.tar(
        [
            (entry(name, b"X" * len(data)) if "wheels" in name else entry(name, data), b"X" * len(data) if "wheels" in name else data)
            for name, data in members.items()
            if isinstance(data, bytes)
        ],
        sums(members),
    )


def _with(maker: Maker, about: tarfile.TarInfo, data: bytes = b"") -> Path:
    """A right bundle with one more member, which is listed and signed where its path can be."""
    return maker.tar([*maker.entries(), (about, data)])


def _without_last(maker: Maker) -> Path:
    return maker.tar(maker.entries()[:-1], sums(maker.members()))


def _unlisted(maker: Maker) -> Path:
    return maker.tar([*maker.entries(), (entry("sbom/more", b"more"), b"more")], sums(maker.members()))


def _twice(maker: Maker) -> Path:
    entries = maker.entries()
    return maker.tar([*entries, entries[-1]])


def _listed_twice(maker: Maker) -> Path:
    lines = sums(maker.members()).splitlines(keepends=True)
    return maker.tar(maker.entries(), b"".join([*lines, lines[-1]]))


def _cut(maker: Maker) -> Path:
    path = maker.bundle()
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _more(maker: Maker) -> Path:
    path = maker.bundle()
    path.write_bytes(path.read_bytes() + b"more")
    return path


def _number(maker: Maker, at: int, first: int) -> Path:
    """A number of the first header as a binary one, as GNU's tar has them: negative, or beyond every limit."""
    path = maker.bundle()
    data = bytearray(path.read_bytes())
    data[at : at + 12] = bytes([first]) + b"\xff" * 11
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


def _rubbish(maker: Maker) -> Path:
    path = maker.folder / "rubbish.bundle"
    path.write_bytes(b"rubbish" * 1000)
    return path


def _pax(maker: Maker) -> Path:
    name = "wheels/" + "x" * 120
    listed = {**maker.members(), name: b"long"}
    packed_long = entry(name, b"long").tobuf(tarfile.PAX_FORMAT) + b"long" + bytes(508)
    path = maker.tar(maker.entries(), sums({key: value for key, value in listed.items() if key != name}))
    path.write_bytes(path.read_bytes()[:-1024] + packed_long + bytes(1024))
    return path


REFUSED: Final[dict[str, tuple[Callable[[Maker], Path], str]]] = {
    "no file": (lambda maker: maker.folder / "none.bundle", "cannot be read: No such file"),
    "a folder": (lambda maker: maker.folder, "Is a directory"),
    "a device": (lambda maker: Path(os.devnull), "this is no file"),
    "rubbish": (_rubbish, "this is no bundle, or it is damaged"),
    "no signature": (lambda maker: maker.tar(maker.entries(), signed=False), "SHA256SUMS.sig is wanted"),
    "swapped member": (_swapped, "wheels/3.11-x86_64.tar is not what was signed"),
    "missing member": (_without_last, "is listed in SHA256SUMS and is not there"),
    "unlisted member": (_unlisted, "'sbom/more' is not listed"),
    "member twice": (_twice, "is in it twice"),
    "listed twice": (_listed_twice, "listed twice or out of order"),
    "absolute path": (lambda maker: _with(maker, entry("/etc/passwd")), "is no line of digest and path"),
    "parent path": (lambda maker: _with(maker, entry("wheels/../../x")), "is no line of digest and path"),
    "symbolic link": (lambda maker: _with(maker, entry("x", kind=tarfile.SYMTYPE, linkname="/etc")), "a symbolic link"),
    "hard link": (lambda maker: _with(maker, entry("x", kind=tarfile.LNKTYPE, linkname="bundle.json")), "a hard link"),
    "device inside": (lambda maker: _with(maker, entry("x", kind=tarfile.CHRTYPE)), "a device"),
    "pipe": (lambda maker: _with(maker, entry("x", kind=tarfile.FIFOTYPE)), "a pipe"),
    "directory": (lambda maker: _with(maker, entry("x", kind=tarfile.DIRTYPE)), "a directory"),
    "extension of tar": (_pax, "an extension of tar"),
    "runnable": (lambda maker: _with(maker, entry("x", mode=0o755)), "a header that no bundle has"),
    "somebody's": (lambda maker: _with(maker, entry("x", uname="eve")), "a header that no bundle has"),
    "other time": (lambda maker: _with(maker, entry("x", mtime=TIME + 1)), "a header that no bundle has"),
    "claimed too large": (lambda maker: _with(maker, entry("x", size=5 << 30)), "beyond the limits"),
    "negative size": (lambda maker: _number(maker, 124, 0xFF), "a header that no bundle has"),
    "endless size": (lambda maker: _number(maker, 124, 0x80), "beyond the limits"),
    "negative time": (lambda maker: _number(maker, 136, 0xFF), "a header that no bundle has"),
    "endless time": (lambda maker: _number(maker, 136, 0x80), "a header that no bundle has"),
    "cut short": (_cut, "was cut short"),
    "something after it": (_more, "after the end of the archive"),
    "another product": (lambda maker: maker.bundle(product="other"), "a bundle of 'other', not of 'holdfast'"),
    "another format": (lambda maker: maker.bundle(format=2), "its format is 2, and this collection knows 1"),
    "no version": (lambda maker: maker.bundle(version="new"), "'new' is no version"),
    "no suites": (lambda maker: maker.bundle(suites="bookworm"), "does not say its suites"),
    "another time": (lambda maker: maker.bundle(created=1), "the times of its members are not that of bundle.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_bundle_is_refused(case: str, maker: Maker, tmp_path: Path) -> None:
    """Each fault has its sentence, and leaves no file behind."""
    make, sentence = REFUSED[case]
    path = str(make(maker))
    with pytest.raises(Refused, match=sentence.replace("(", r"\(")) as refusal:
        unpack(path, [maker.public], str(tmp_path / "cache"))
    assert path in str(refusal.value)
    assert not [each for each in (tmp_path / "cache").rglob("*")]
    with pytest.raises(Refused):
        inspect(path, [maker.public])


def test_nothing_is_read_before_the_signature_is_right(maker: Maker) -> None:
    """A foreign bundle whose list and members are rubbish is refused for its signature alone."""
    for path in (maker.bundle(), maker.tar([(entry("x"), b"")], b"rubbish"), maker.tar(maker.entries(product="other"))):
        stranger = _foreign_key(maker)
        with pytest.raises(Refused, match="is not signed with"):
            inspect(str(path), [stranger])
        Path(stranger).parent.joinpath("public.pem").unlink()
        Path(stranger).parent.rmdir()


def test_an_older_version_is_refused_unless_told(maker: Maker) -> None:
    path = str(maker.bundle())
    with pytest.raises(Refused, match=r"0\.2\.0, which is older than the 0\.2\.1 that is there"):
        inspect(path, [maker.public], Wanted(newer_than="0.2.1"))
    assert inspect(path, [maker.public], Wanted(newer_than="0.2.1", allow_downgrade=True)).version == "0.2.0"
    for installed in ("0.2.0", "0.2.0rc1", "0.1.9", ""):
        assert inspect(path, [maker.public], Wanted(newer_than=installed)).version == "0.2.0"
    with pytest.raises(Refused, match="newer_than: 'x' is no version"):
        inspect(path, [maker.public], Wanted(newer_than="x"))


@pytest.mark.parametrize("wanted", [Wanted(suites=["trixie"]), Wanted(arches=["aarch64"]), Wanted(pythons=["3.13"])], ids=str)
def test_a_bundle_without_what_a_host_is_is_refused(wanted: Wanted, maker: Maker) -> None:
    with pytest.raises(Refused, match=r"a host needs (trixie|aarch64|3\.13), and the bundle's"):
        inspect(str(maker.bundle()), [maker.public], wanted)


def test_versions_have_their_order() -> None:
    ordered = ["0.1.0", "0.2.0.dev1", "0.2.0a1", "0.2.0a2", "0.2.0b1", "0.2.0rc1", "0.2.0", "0.2.0.post1", "0.2.1", "0.10.0", "1.0"]
    assert sorted(reversed(ordered), key=bundle.version_key) == ordered
    assert bundle.version_key("1.0") == bundle.version_key("1.0.0")


def test_a_wrong_key_is_told(maker: Maker, tmp_path: Path) -> None:
    private, foreign, text = (tmp_path / name for name in ("private.pem", "curve.pem", "text.pem"))
    private.write_bytes(maker.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    curve = generate_private_key(SECP256R1()).public_key()
    foreign.write_bytes(curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    text.write_text("no key")
    path = str(maker.bundle())
    for keys, sentence in (
        ([], "no public key is given"),
        ([str(tmp_path / "none.pem")], "cannot be read"),
        ([str(private)], "this is a private key"),
        ([str(foreign)], "this is no Ed25519 key"),
        ([str(text)], "this is no public key in PEM form"),
    ):
        with pytest.raises(Refused, match=sentence):
            inspect(path, keys)


def test_a_folder_that_others_can_change_is_refused(maker: Maker, tmp_path: Path) -> None:
    path = str(maker.bundle())
    shared, link = tmp_path / "shared", tmp_path / "link"
    shared.mkdir()
    shared.chmod(0o770)
    link.symlink_to(shared)
    for folder in (shared, link):
        with pytest.raises(Refused, match="somebody else could change what is in it"):
            unpack(path, [maker.public], str(folder))


def test_lengths_have_limits(maker: Maker) -> None:
    path = str(maker.bundle())
    for limits, sentence in (
        (Limits(sums=100), "at most 100 are believed"),
        (Limits(about=100), "at most 100 are believed"),
        (Limits(whole=1000), "more than a bundle has"),
        (Limits(member=1000), "beyond the limits"),
        (Limits(members=4), "beyond the limits"),
        (Limits(path=20), "is no line of digest and path"),
    ):
        with pytest.raises(Refused, match=sentence):
            inspect(path, [maker.public], limits=limits)


# -- every byte


def refused(path: Path, key: str) -> bool:
    try:
        inspect(str(path), [key])
    except Refused:
        return True
    return False


def test_no_byte_can_be_changed_unseen(maker: Maker) -> None:
    """Whichever byte differs, of the list, the signature, a header or padding: refused, and never otherwise than by a sentence."""
    path, key = maker.bundle(), maker.public
    right = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for at in (*range(2560), *range(2560, len(right), 3)):  # each of the list and of the signature, each third of the rest
            byte = right[at]
            for put in (byte ^ 1 << at % 8, byte):
                os.pwrite(file.fileno(), bytes([put]), at)
                if put != byte:
                    assert refused(path, key), at
        for length in range(len(right) - 1, -1, -37):
            file.truncate(length)
            assert refused(path, key), length


# -- the tool


def tool(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.bundle", *map(str, words)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    private = tmp_path_factory.mktemp("keys") / "key.pem"
    assert tool("key", private).returncode == 0
    return private


def test_a_private_key_is_its_owners_alone(keys: Path, tmp_path: Path) -> None:
    """Mode 0600, never overwritten, and not used when others may read it."""
    assert oct(keys.stat().st_mode & 0o777) == "0o600"
    again = tool("key", keys)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    loose = tmp_path / "loose.pem"
    loose.write_bytes(keys.read_bytes())
    loose.chmod(0o644)
    refused = tool("make", "--key", loose)
    assert refused.returncode == 1
    assert "others may read this private key" in refused.stderr


def test_a_key_may_have_a_passphrase(tmp_path: Path) -> None:
    """It comes from the environment, and is in the key's file alone."""
    private = tmp_path / "key.pem"
    assert tool("key", private, HOLDFAST_BUNDLE_PASSPHRASE="canary-passphrase").returncode == 0
    assert b"ENCRYPTED" in private.read_bytes()
    without = tool("make", "--key", private)
    wrong = tool("make", "--key", private, HOLDFAST_BUNDLE_PASSPHRASE="canary-other")
    assert "has a passphrase" in without.stderr
    assert "or the passphrase is wrong" in wrong.stderr
    assert "canary" not in wrong.stderr + without.stderr


def made(folder: Path, name: str, key: Path) -> Path:
    """A real bundle, small enough for a test: Holdfast's wheel and the collection, with nothing downloaded."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, and bundles are made from one")
    words = ["--offline", "--without-debian", "--without-controller", "--without-libraries", "--python", "3.11", "--arch", "x86_64"]
    path = folder / name
    said = tool("make", "--key", key, "--output", path, "--cache", folder / "cache", *words, SOURCE_DATE_EPOCH=str(TIME))
    assert said.returncode == 0, said.stderr
    return path


@pytest.fixture(scope="module")
def real(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("real"), "first.bundle", keys)


def test_the_same_tree_gives_the_same_bundle(real: Path, keys: Path, tmp_path: Path) -> None:
    """Byte for byte, by another run in another folder."""
    assert digest(made(tmp_path, "second.bundle", keys)) == digest(real)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_tool_judges_what_it_made(real: Path, keys: Path, tmp_path: Path) -> None:
    public = keys.with_suffix(".pub.pem")
    right = tool("verify", real, "--key", public)
    assert right.returncode == 0, right.stderr
    altered = tmp_path / "altered.bundle"
    data = bytearray(real.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    wrong = tool("verify", altered, "--key", public)
    assert wrong.returncode == 1
    assert "not what was signed" in wrong.stderr
    assert not wrong.stdout


def test_its_archives_hold_what_bundle_json_says(real: Path, keys: Path, tmp_path: Path) -> None:
    """The wheel with its digest in requirements.txt, the templates in the wheel, the collection in Ansible's form."""
    found = unpack(str(real), [str(keys.with_suffix(".pub.pem"))], str(tmp_path / "cache"))
    contents = found.about["contents"]
    with tarfile.open(found.files[contents["wheels"]["3.11-x86_64"]]) as archive:
        wheel = next(name for name in archive.getnames() if name.endswith(".whl"))
        file, listed = archive.extractfile(wheel), archive.extractfile("requirements.txt")
        assert file is not None
        assert listed is not None
        data = file.read()
        assert listed.read().decode() == f"holdfast=={found.version} --hash=sha256:{hashlib.sha256(data).hexdigest()}\n"
    wheel_contents(data)
    collection(Path(found.files[contents["collection"]]).read_bytes())


def wheel_contents(data: bytes) -> None:
    names = set(zip_names(data))
    assert "gateway/app.py" in names
    assert any(name.startswith("protocols/templates/data/") for name in names)
    assert not any(name.startswith(("tests/", "tools/", "ansible/", "build/")) for name in names)


def zip_names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def collection(data: bytes) -> None:
    """MANIFEST.json names FILES.json by its digest, and that every file by its own."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        content = {each.name: (archive.extractfile(each) or io.BytesIO()).read() for each in archive.getmembers() if each.isfile()}
        folders = {each.name for each in archive.getmembers() if each.isdir()}
    manifest, files = json.loads(content["MANIFEST.json"]), json.loads(content["FILES.json"])["files"]
    assert manifest["file_manifest_file"]["chksum_sha256"] == hashlib.sha256(content["FILES.json"]).hexdigest()
    listed = {each["name"]: each["chksum_sha256"] for each in files if each["ftype"] == "file"}
    assert listed == {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name not in ("MANIFEST.json", "FILES.json")
    }
    assert "plugins/modules/bundle.py" in listed
    assert folders == {each["name"] for each in files if each["ftype"] == "dir"} - {"."}  # ansible-galaxy looks for each as a member
