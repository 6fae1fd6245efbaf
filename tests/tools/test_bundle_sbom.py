"""The bills of materials are CycloneDX 1.6 by its own schema, and what is chosen for a machine is right for it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft7Validator
from packaging.utils import parse_wheel_filename
from referencing import Registry, Resource

from tools import bundle_debian, bundle_sbom, bundle_wheels
from tools.bundle_wheels import CannotMake, Pinned, Target

ROOT: Final = Path(__file__).parents[2]
SCHEMAS: Final = ROOT / "build/peers/cyclonedx/cyclonedx/schema/_res"
STANZA: Final = """Package: mosquitto
Source: mosquitto (2.0.11-1)
Version: 1:2.0.11-1.2+deb12u2
Architecture: amd64
Depends: libc6 (>= 2.36), libssl3 (>= 3.0.0), adduser (>= 3.10) | debconf, init-system-helpers
Pre-Depends: init-system-helpers (>= 1.54~)
Breaks: old-name (<< 1.0)
Filename: pool/main/m/mosquitto/mosquitto_2.0.11-1.2+deb12u2_amd64.deb
SHA256: 7ee1a64c5cbd0d3b3bfb4ec8d8e1b0b60a8e2d0f6f7c2a37f3a33c2a9e7f1234
Description: MQTT version 5.0/3.1.1/3.1 compatible message broker"""


def schema() -> Draft7Validator:
    if not SCHEMAS.exists():
        pytest.skip("the schemas of CycloneDX are not there: make build/peers/cyclonedx/.made")
    names = ("bom-1.6.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    read = {name: json.loads((SCHEMAS / name).read_text()) for name in names}
    # The resource's type is that of JSON, which referencing leaves open.
    registry: Registry[Any] = Registry().with_resources(
        [(f"http://cyclonedx.org/schema/{n}", Resource.from_contents(read[n])) for n in names]
    )
    return Draft7Validator(read[names[0]], registry=registry)


def wheel(folder: Path, name: str, *fields: str) -> Path:
    path = folder / f"{name.replace('-', '_')}-1.0+local-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{name.replace('-', '_')}-1.0+local.dist-info/METADATA", "\n".join([f"Name: {name}", "Version: 1.0+local", *fields]) + "\n"
        )
    return path


@pytest.mark.parametrize(
    ("fields", "licences"),
    [
        (("License-Expression: MIT AND BSD-3-Clause",), [{"expression": "MIT AND BSD-3-Clause"}]),
        (("Classifier: License :: OSI Approved :: MIT License",), [{"license": {"name": "MIT License"}}]),
        (("License: Apache 2",), [{"license": {"name": "Apache 2"}}]),
        (("License: " + "text " * 50,), None),
        ((), None),
    ],
    ids=["expression", "classifier", "name", "text", "none"],
)
def test_a_wheels_licence_is_what_it_says(fields: tuple[str, ...], licences: list[object] | None, tmp_path: Path) -> None:
    """An expression before classifiers before a name; a text is no name."""
    component = bundle_sbom.wheel(wheel(tmp_path, "a-library", *fields))
    assert component.get("licenses") == licences
    assert component["purl"] == "pkg:pypi/a-library@1.0%2Blocal?file_name=a_library-1.0%2Blocal-py3-none-any.whl"
    assert not list(schema().iter_errors(json.loads(bundle_sbom.document({"name": "x", "version": "1"}, [component], 0))))


def test_documents_are_cyclonedx(tmp_path: Path) -> None:
    """Every kind of component, by the official schema; the same components give the same bytes."""
    components = [
        bundle_sbom.wheel(wheel(tmp_path, "a-library", "License-Expression: MIT")),
        bundle_sbom.package(STANZA, "bookworm"),
        bundle_sbom.collection("holdfast.gateway", "0.2.0", "0" * 64),
    ]
    text = bundle_sbom.document({"name": "debian/bookworm-x86_64.tar", "version": "0.2.0"}, components, 1_780_000_000)
    assert not list(schema().iter_errors(json.loads(text)))
    assert bundle_sbom.document({"name": "debian/bookworm-x86_64.tar", "version": "0.2.0"}, reversed(components), 1_780_000_000) == text
    assert "pkg:deb/debian/mosquitto@1%3A2.0.11-1.2%2Bdeb12u2?arch=amd64&distro=bookworm" in text.decode()


def test_the_schema_bites() -> None:
    wrong = json.loads(bundle_sbom.document({"name": "x", "version": "1"}, [{"bom-ref": "x", "type": "kind of its own"}], 0))
    assert list(schema().iter_errors(wrong))


@pytest.mark.parametrize(
    ("file", "right"),
    [
        ("a-1-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", True),
        ("a-1-cp311-cp311-manylinux_2_36_aarch64.whl", True),
        ("a-1-cp39-abi3-manylinux_2_34_aarch64.whl", True),
        ("a-1-py3-none-any.whl", True),
        ("a-1-cp311-cp311-manylinux_2_39_aarch64.whl", False),
        ("a-1-cp311-cp311-musllinux_1_2_aarch64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", False),
        ("a-1-cp313-cp313-manylinux_2_17_aarch64.whl", False),
        ("a-1-cp312-abi3-manylinux_2_17_aarch64.whl", False),
    ],
)
def test_a_wheel_is_right_for_a_machine_or_not(file: str, right: bool) -> None:
    """Debian 12 on ARM with Python 3.11: glibc up to 2.36, stable ABI up to 3.11."""
    assert bool(Target("3.11", "aarch64").tags & parse_wheel_filename(file)[3]) == right


def test_a_wheel_that_was_not_locked_is_not_taken(tmp_path: Path) -> None:
    """The cache's file has the right name and another digest."""
    target = Target("3.11", "x86_64")
    folder = tmp_path / "wheels" / target.name
    folder.mkdir(parents=True)
    wheel(folder, "a-library")
    with pytest.raises(CannotMake, match=r"a-library==1\.0\+local for 3\.11-x86_64 is not in"):
        bundle_wheels.fetched([Pinned("a-library", "1.0+local", frozenset({"0" * 64}))], target, tmp_path, offline=True)


def test_every_lock_is_read_whole() -> None:
    """Each entry of the locks that bundles are made from has its hashes."""
    for name in ("requirements.lock", "molecule/requirements.lock"):
        locked = bundle_wheels.read_lock(ROOT / name)
        assert len(locked) == len(re.findall(r"^[a-z0-9][^ ]*==", (ROOT / name).read_text(), re.MULTILINE))
        assert all(each.hashes for each in locked.values())


def test_versions_that_a_package_asks_for_come_along() -> None:
    """Only relations with a version name packages that a minimal host may have too old."""
    assert set(bundle_debian._versioned(STANZA)) == {"libc6", "libssl3", "adduser", "init-system-helpers", "old-name"}


def test_packages_names_its_files_beside_it() -> None:
    """The mirror's folders are not the bundle's."""
    listed = bundle_debian.repository({"mosquitto": STANZA}, {})["Packages"]
    assert isinstance(listed, bytes)
    assert b"Filename: ./mosquitto_2.0.11-1.2+deb12u2_amd64.deb\n" in listed


def lists(value: object, key: str = "") -> Iterator[str]:
    """Names in lists under ``packages_names`` and ``<role>_packages``."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from lists(inner, str(name))
    elif isinstance(value, list):
        named = key == "packages_names" or key.endswith("_packages")
        for inner in value:
            yield from [inner] if named and isinstance(inner, str) else lists(inner)


def test_what_roles_install_is_in_the_bundles_list() -> None:
    """Names in the roles' tasks and variables are in the one list that a bundle is made from."""
    pages = [path for each in ("tasks", "vars", "defaults") for path in (ROOT / "ansible/roles").glob(f"*/{each}/*.yml")]
    wanted = {name for path in pages for name in lists(yaml.safe_load(path.read_text()))}
    assert {"python3-apt", "ca-certificates"} <= set(bundle_debian.names(ROOT))
    assert "mosquitto" in wanted
    assert not wanted - set(bundle_debian.names(ROOT))
