"""Bills of materials in CycloneDX 1.6: one for each archive of the bundle, so that each says what came onto one kind of host.

Wheels tell their name, version and licence themselves; of Debian's packages the signed list tells name, version and digest, their
licences stand in each package's copyright file.
"""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.parser import Parser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from packaging.utils import canonicalize_name

from tools.bundle_archive import digest
from tools.bundle_debian import field

Component = dict[str, Any]  # Any: JSON
NAMESPACE: Final = uuid.UUID("6f2f2f0c-0b6c-5b0e-9d0f-3d0a3f1f6f60")
LONGEST: Final = 100
"""A licence field longer than a name holds the licence's text."""


def wheel(path: Path) -> Component:
    """A component out of a wheel's own metadata."""
    with zipfile.ZipFile(path) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA") and each.count("/") == 1)
        told = Parser().parsestr(archive.read(name).decode("utf-8", "replace"), headersonly=True)
    name, version = canonicalize_name(str(told["Name"])), str(told["Version"])
    purl = f"pkg:pypi/{name}@{quote(version)}?file_name={quote(path.name)}"
    component = _component(purl, name, version, digest(path), str(told.get("Summary", "")))
    licence = _licence(told.get("License-Expression"), told.get_all("Classifier", []), told.get("License"))
    return {**component, "licenses": [licence]} if licence else component


def _licence(expression: str | None, classifiers: Iterable[str], text: str | None) -> dict[str, Any] | None:  # Any: JSON
    if expression:
        return {"expression": expression}
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ") and each != "License :: OSI Approved"]
    if named:
        return {"license": {"name": " AND ".join(named)}}
    return {"license": {"name": text.strip()}} if text and len(text.strip()) <= LONGEST and "\n" not in text.strip() else None


def package(stanza: str, suite: str) -> Component:
    """A component out of a stanza of Debian's list."""
    name, version, arch = (field(stanza, each) for each in ("Package", "Version", "Architecture"))
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}&distro={suite}"
    return _component(purl, name, version, field(stanza, "SHA256"), field(stanza, "Description"))


def collection(name: str, version: str, sha256: str) -> Component:
    return _component(f"pkg:generic/{name}@{version}", name, version, sha256, "Ansible collection")


def _component(purl: str, name: str, version: str, sha256: str, description: str) -> Component:
    hashes = [{"alg": "SHA-256", "content": sha256}]
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "description": description,
        "purl": purl,
        "hashes": hashes,
    }


def document(about: Mapping[str, str], components: Iterable[Component], created: int) -> bytes:
    """The document for one archive; ``about`` is its name and the product's version."""
    ordered = sorted(components, key=lambda each: str(each["bom-ref"]))
    subject = f"pkg:generic/holdfast-bundle@{about['version']}#{about['name']}"
    body = {
        "metadata": {
            "timestamp": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": subject, "name": f"holdfast {about['name']}", "version": about["version"]},
        },
        "components": ordered,
        "dependencies": [{"ref": subject, "dependsOn": [each["bom-ref"] for each in ordered]}],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(body, sort_keys=True))
    return (
        json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}, indent=1)
        + "\n"
    ).encode()
