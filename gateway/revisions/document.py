"""A site document as it was sent, with all that it becomes: plain values, a site that may be run, digests.

Relative paths, and the site's own templates, start from the folder of the document that the gateway was started with, wherever
the document came from. The digests of those templates go with it, because a document alone does not say what they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.config import check, check_files, locate, model
from gateway.config.document import MAX_BYTES, Plain, parse
from gateway.config.load import load_bytes
from gateway.config.places import rooted
from gateway.config.templates import FOLDER, library
from gateway.objections import TooLarge, Unfit
from protocols.contract import Problem

_MOST_TEMPLATE_BYTES: Final = 4 * 1024**2


@dataclass(frozen=True)
class Document:
    """A document without errors."""

    raw: bytes
    site: model.Site
    """What runs: templates written out, paths absolute."""
    digest: str
    templates: dict[str, str] = field(default_factory=dict)
    """Folder of the site's own templates that it names: SHA-256 of their files."""
    warnings: tuple[Problem, ...] = ()

    @cached_property
    def plain(self) -> Plain:
        """As it is written. Slow when it is first asked for."""
        parsed, _ = parse(self.raw)
        return parsed.value if parsed is not None else None

    @property
    def identity(self) -> str:
        """The same for the same text with the same templates of the site."""
        return identity(self.digest, self.templates)


def read(raw: bytes, base: Path) -> Document:
    """``raw`` as a document whose paths start from ``base``. Slow: not for the event loop. Raises Unfit, TooLarge."""
    if len(raw) > MAX_BYTES:
        raise TooLarge(f"a document has at most {MAX_BYTES} bytes", "use templates, or split the site over several gateways")
    site, problems = load_bytes(raw, templates=library(base / "site.yaml"))
    if site is not None:
        problems = locate([*problems, *check(site)], raw)
    errors = [one for one in problems if one.severity == "error"]
    if site is None or errors:
        first = f"; the first: {errors[0].path or 'document'}: {errors[0].message}" if errors else ""
        raise Unfit(f"the document has {len(errors)} errors{first}", "mend them; nothing was changed", problems)
    missing = [msgspec.structs.replace(one, severity="warning") for one in check_files(site, base)]  # what changes is looked at when built
    return Document(raw, rooted(site, base), digest(raw), templates_of(raw, base), (*problems, *missing))


def known(site: model.Site, raw: bytes | None, base: Path) -> Document:
    """The document of a site that was judged already. ``raw`` None: the site came from none, as a test's or the demo's does."""
    if raw is None:
        raw = msgspec.json.encode(site)
    return Document(raw, site, digest(raw), templates_of(raw, base))


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def identity(of_document: str, templates: dict[str, str]) -> str:
    return " ".join([of_document, *(f"{name}={one}" for name, one in sorted(templates.items()))])


def templates_of(raw: bytes, base: Path) -> dict[str, str]:
    """The digests of the folders of the site's own templates that a document names."""
    root = base / FOLDER
    if not root.is_dir():
        return {}
    parsed, _ = parse(raw)
    plain = parsed.value if parsed is not None else None
    folders = sorted({name.partition("/")[0] for name in _named(plain)})
    return {name: _digest_of(root / name) for name in folders if _is_name(name) and (root / name).is_dir()}


def _is_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "\0" not in name


def _digest_of(folder: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.yaml")):
        try:
            with file.open("rb") as content:
                found.update(file.name.encode() + b"\0" + content.read(_MOST_TEMPLATE_BYTES))
        except OSError as error:
            found.update(f"{file.name}\0{error.errno}".encode())
    return found.hexdigest()


def _named(plain: Plain) -> Iterator[str]:
    connections: Any = plain.get("connections") if isinstance(plain, dict) else None  # Any: plain values
    for connection in connections if isinstance(connections, list) else ():
        devices = connection.get("devices") if isinstance(connection, dict) else None
        for device in devices if isinstance(devices, list) else ():
            if isinstance(device, dict) and isinstance(device.get("template"), str):
                yield device["template"]
