"""Makes a backup, beside a gateway that runs or of one that is stopped.

In it: the site document and its own templates, the state (users, tokens, revisions, registry, shadows) as one consistent copy, the
authority's keys and certificates, the audit log, and with ``journal`` the segments that are not written to any more. Not in it: secrets
that the document refers to (they are never the gateway's), a segment that is being written (a gateway that runs is asked to begin a new
one first), and what is made anew (roll-ups).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway.backup.archive import ABOUT, PORTION, About, Writer
from gateway.backup.envelope import Seal, Unsealed
from gateway.config.templates import FOLDER as TEMPLATES
from gateway.journal import Lane
from gateway.journal.segment import side_files, size_of, sync_folder
from gateway.releases.kept import copy
from gateway.state import FILE

AUTHORITY: Final = "authority"
AUDIT: Final = "audit"


@dataclass(frozen=True, slots=True)
class Source:
    """Where everything lies."""

    site: Path
    journal: Path
    state: Path


def backup(source: Source, about: About, out: Path, passphrase: str | None) -> int:
    """Write the backup to ``out``, which must not be there; its bytes. Without a passphrase it is not encrypted. Raises OSError,
    sqlite3.Error, Unsealed (a file that lies there and that no backup takes)."""
    if out.exists():
        raise FileExistsError(17, "it is there already: name a new file, so that no backup is lost", str(out))
    draft = out.with_name(f".{out.name}.partial")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            _write(source, about, file, passphrase)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(out)
        sync_folder(out.parent)
    finally:
        draft.unlink(missing_ok=True)
    return out.stat().st_size


def _write(source: Source, about: About, file: BinaryIO, passphrase: str | None) -> None:
    seal = Seal(file, passphrase) if passphrase is not None else None
    writer = Writer(seal or file)
    writer.add_bytes(ABOUT, msgspec.json.encode(about))
    _add(writer, "site/document", source.site)
    for path in sorted((source.site.parent / TEMPLATES).rglob("*")):
        if path.is_file() and path.suffix in (".yaml", ".yml"):
            _add(writer, f"site/templates/{path.relative_to(source.site.parent / TEMPLATES).as_posix()}", path)
    _add_state(writer, source.state)
    for path in sealed(source.journal) if about.journal else ():
        _add(writer, f"journal/{path.parent.name}/{path.name}", path)
    writer.close()
    if seal is not None:
        seal.close()


def _add_state(writer: Writer, folder: Path) -> None:
    if not (folder / FILE).exists():
        raise FileNotFoundError(2, "there is no state: has this gateway ever run?", str(folder / FILE))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".backup-") as place:  # private, and on the disk that has the original
        copied = Path(place) / FILE
        copy(folder / FILE, copied)
        _add(writer, f"state/{FILE}", copied)
    for path in sorted((folder / AUTHORITY).glob("[!.]*")):
        _add(writer, f"state/{AUTHORITY}/{path.name}", path)
    for path in [*sorted((folder / AUDIT).glob("audit-*.ndjson")), folder / AUDIT / "head.json"]:
        if path.exists():
            _add(writer, f"state/{AUDIT}/{path.name}", path)


def sealed(journal: Path) -> list[Path]:
    """Segments that stand alone: what has a log beside it is being written to, or was when the power went."""
    found = [path for lane in Lane for path in sorted((journal / lane.value).glob("*.seg"))]
    return [path for path in found if not any(size_of(side) for side in side_files(path))]


def _add(writer: Writer, name: str, path: Path) -> None:
    """As long as it is now: a log that grows meanwhile is cut at this length."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        size = os.fstat(file.fileno()).st_size
        try:
            writer.add(name, size, _portions(file, size))
        except Unsealed as error:
            raise Unsealed(f"{path} cannot be backed up: {error}: take it away, or name it otherwise") from None


def _portions(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (portion := file.read(min(size, PORTION))):
        size -= len(portion)
        yield portion
