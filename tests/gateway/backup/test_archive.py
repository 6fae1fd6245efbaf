"""The inside of a backup: what no backup has is refused before anything is written."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest

from gateway.backup.archive import ABOUT, MANIFEST, Reader, Writer
from gateway.backup.envelope import Unsealed


def packed(**members: bytes) -> bytes:
    out = io.BytesIO()
    writer = Writer(out)
    writer.add_bytes(ABOUT, b"{}")
    for name, content in members.items():
        writer.add_bytes(name, content)
    writer.close()
    return out.getvalue()


def read(content: bytes) -> dict[str, bytes]:
    reader = Reader(io.BytesIO(content).read)
    found = {name: b"".join(portions) for name, _, portions in reader.members()}
    reader.check()
    return found


GOOD = {
    "site/document": b"holdfast: 1",
    "state/state.db": b"x" * 1000,
    "state/authority/ca.key": b"key",
    "journal/telemetry/1-1.seg": b"seg",
}


def test_it_is_a_tar_file_and_comes_back() -> None:
    box = packed(**GOOD)
    assert read(box) == {ABOUT: b"{}", **GOOD}
    with tarfile.open(fileobj=io.BytesIO(box)) as tar:
        assert tar.getnames() == [ABOUT, *GOOD, MANIFEST]


def made(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    """A backup with one more member, made with tar and changed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        told = tarfile.TarInfo("state/authority/evil")
        told.mode = 0o600
        change(told)
        tar.addfile(told, io.BytesIO(bytes(told.size)))
    return packed(**GOOD)[:1024] + out.getvalue()


def named(name: str) -> Callable[[tarfile.TarInfo], None]:
    return lambda told: setattr(told, "name", name)


def kind(letter: bytes, target: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(told: tarfile.TarInfo) -> None:
        told.type, told.linkname = letter, target

    return change


def mode(bits: int) -> Callable[[tarfile.TarInfo], None]:
    return lambda told: setattr(told, "mode", bits)


@pytest.mark.parametrize(
    "change",
    [
        *(
            named(name)
            for name in (
                "/etc/passwd",
                "../../etc/passwd",
                "state/authority/../../../etc/passwd",
                "state/authority/..",
                "state/authority/.hidden",
                "state/../state/state.db",
                "site/templates/../document",
                "site/templates/x.sh",
                "./state/state.db",
                "anything",
                "state/authority/a\nb",
                "journal/telemetry/1-1.seg-wal",
            )
        ),
        kind(tarfile.SYMTYPE, "/etc/passwd"),
        kind(tarfile.LNKTYPE, "state/state.db"),
        kind(tarfile.CHRTYPE),
        kind(tarfile.BLKTYPE),
        kind(tarfile.FIFOTYPE),
        kind(tarfile.DIRTYPE),
        kind(b"x"),
        kind(b"L"),
        mode(0o4755),
        mode(0o777),
        lambda told: setattr(told, "uid", 0o1000),
        lambda told: setattr(told, "size", 2 * 1024 * 1024),
    ],
)
def test_what_is_no_plain_file_of_a_backup_is_refused(change: Callable[[tarfile.TarInfo], None]) -> None:
    with pytest.raises(Unsealed, match=r"no plain file|that no backup has"):
        read(made(change))


def test_changed_cut_doubled_unlisted_and_lengthened_backups_are_refused() -> None:
    box = packed(**GOOD)
    assert box.count(b"holdfast: 1") == 1
    two = packed(**{"state/state.db": b"1"})
    for wrong in (
        box.replace(b"holdfast: 1", b"holdfast: 2"),
        *(box[:at] for at in range(0, len(box) - 1024, 512)),
        box[:1024] + box[1024:2048] * 2 + box[2048:],  # the document twice
        box[:1024] + box[2048:],  # and not at all
        box[:1024] + two[1024:2048] + box[1024:],
    ):
        with pytest.raises(Unsealed):
            read(wrong)


def test_a_name_that_no_backup_takes_is_not_written_either() -> None:
    with pytest.raises(Unsealed):
        packed(**{"state/authority/a b": b""})
