"""The collection as the archive that `ansible-galaxy collection install` takes, with the same bytes for the same files.

`ansible-galaxy collection build` writes the same form with the time of day in it.
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from tools.bundle_archive import digest

FOLDER: Final = "ansible"
TOLD: Final = ("namespace", "name", "version", "authors", "readme", "tags", "description", "license_file", "dependencies")
ADDRESSES: Final = ("repository", "documentation", "homepage", "issues")


def build(root: Path, files: Iterable[str], mtime: int) -> tuple[str, bytes]:
    """File name and bytes of the collection, out of ``files`` under ``ansible/``."""
    galaxy = yaml.safe_load((root / FOLDER / "galaxy.yml").read_text())
    ignored = ["galaxy.yml", *galaxy.get("build_ignore", [])]
    names = sorted(name for each in files if (name := each.removeprefix(f"{FOLDER}/")) != each and not _ignored(name, ignored))
    content = {name: (root / FOLDER / name).read_bytes() for name in names}
    for wanted in filter(None, (galaxy["readme"], galaxy.get("license_file"))):
        content.setdefault(wanted, (root / wanted).read_bytes())  # the product's own, where the collection has none
    content = dict(sorted(content.items()))
    listed = _json({"files": [_entry(".", None), *_entries(content)], "format": 1})
    manifest = _json({"collection_info": _told(galaxy), "file_manifest_file": _entry("FILES.json", listed), "format": 1})
    packed = _pack({"MANIFEST.json": manifest, "FILES.json": listed, **dict.fromkeys(_folders(content)), **content}, mtime)
    return f"{galaxy['namespace']}-{galaxy['name']}-{galaxy['version']}.tar.gz", packed


def _ignored(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for pattern in patterns for part in (name, *PurePosixPath(name).parts))


def _told(galaxy: dict[str, Any]) -> dict[str, Any]:  # Any: YAML and JSON
    return {
        **{name: galaxy.get(name) for name in TOLD},
        "license": galaxy.get("license", []),
        **{name: galaxy.get(name) for name in ADDRESSES},
    }


def _folders(content: Iterable[str]) -> list[str]:
    return sorted({str(parent) for name in content for parent in PurePosixPath(name).parents} - {"."})


def _entries(content: dict[str, bytes]) -> list[dict[str, Any]]:  # Any: JSON
    return [_entry(name, content.get(name)) for name in sorted({*_folders(content), *content})]


def _entry(name: str, content: bytes | None) -> dict[str, Any]:  # Any: JSON
    """A line of the manifest; a folder has no content."""
    known = content is not None
    return {
        "name": name,
        "ftype": "file" if known else "dir",
        "chksum_type": "sha256" if known else None,
        "chksum_sha256": digest(content) if content is not None else None,
        "format": 1,
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _pack(content: dict[str, bytes | None], mtime: int) -> bytes:
    """The archive; a folder, which Ansible wants as a member too, has no content."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in content.items():
            about = tarfile.TarInfo(name)
            about.mtime = mtime
            if data is None:
                about.type, about.mode = tarfile.DIRTYPE, 0o755
            else:
                about.size, about.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(about, io.BytesIO(data or b""))
    return gzip.compress(plain.getvalue(), 9, mtime=0)
