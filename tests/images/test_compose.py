"""What can be said of the container without building it: how it is confined, and that its parts agree with each other and the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gateway import config
from images.container import build, rootfs

ROOT: Final = Path(__file__).parents[2]
HERE: Final = ROOT / "images" / "container"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((HERE / "compose.yaml").read_text())  # Any: YAML
STATUS: Final = """\
Package: python3
Status: install ok installed
Pre-Depends: python3-minimal (= 3.13)
Depends: python3.13 (>= 3.13~), media-types | mime-support

Package: python3-minimal
Status: install ok installed
Depends: dpkg (>= 1)

Package: python3.13
Status: install ok installed
Provides: python3-runtime
Depends: python3, mailcap | mime-support

Package: media-types
Status: install ok installed
Provides: mime-support

Package: gone
Status: deinstall ok config-files
"""


@pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"])
def test_each_container_is_confined(service: dict[str, Any]) -> None:  # Any: YAML
    """Not root and never to be, no capability, nothing to write but volumes, bounded, and no port for the world."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["mem_limit"]
    assert 0 < service["pids_limit"] <= 100
    assert not {"ports", "privileged", "cap_add", "network_mode", "pid", "environment"} & service.keys()
    assert [volume for volume in service["volumes"] if volume.startswith(".")] == [
        volume for volume in service["volumes"] if volume.endswith(":ro")
    ]


def test_the_broker_is_reached_from_its_own_network_alone() -> None:
    """Which leads nowhere."""
    assert COMPOSE["services"]["broker"]["networks"] == ["broker"]
    assert COMPOSE["networks"]["broker"] == {"internal": True}


def test_the_image_is_that_of_this_version() -> None:
    """A new version is a new tag."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert COMPOSE["services"]["gateway"]["image"] == f"${{HOLDFAST_IMAGE:-localhost/holdfast:{version}}}"


def test_the_example_is_right_and_the_broker_lets_it_in() -> None:
    """Its only fault is that the secret is not here; names agree with the broker's rules and with the secrets."""
    site, problems = config.load((HERE / "holdfast" / "site.yaml").read_bytes())
    assert site is not None
    assert not [problem for problem in [*problems, *config.check(site)] if problem.severity == "error"]
    (uplink,) = site.uplinks
    rules = (HERE / "mosquitto" / "acl").read_text()
    assert f"user {uplink.username}\n" in rules
    assert f"topic write spBv1.0/{site.gateway.group}/+/{site.gateway.name}\n" in rules
    assert f"topic write holdfast/{site.gateway.group}/{site.gateway.name}/ledger\n" in rules
    assert uplink.host in COMPOSE["services"]
    assert Path(uplink.password.path).name in COMPOSE["services"]["gateway"]["secrets"]  # type: ignore[union-attr]  # it is a file's


def test_a_packages_dependencies_are_followed() -> None:
    """Alternatives, things provided and circles included; what only installing needs is left out, and so is what is not installed."""
    packages = rootfs.installed(STATUS)
    assert "gone" not in packages
    assert rootfs.needed(["python3"], packages) == ["media-types", "python3", "python3-minimal", "python3.13"]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_lock_is_read_for_the_image_and_not_for_this_machine(arch: str) -> None:
    """Of several versions the image's Python gets its own, without markers, with hashes; what is not locked is said."""
    lock = (
        "numpy==2.4 ; python_full_version < '3.12' \\\n    --hash=sha256:aa\n    # via holdfast\n"
        "numpy==2.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:bb\n"
        "colorama==0.4 ; sys_platform == 'win32' \\\n    --hash=sha256:cc\n"
        "click==8.1 \\\n    --hash=sha256:dd\n"
    )
    assert build.part_of_the_lock(lock, {"numpy"}, arch) == "numpy==2.5 \\\n    --hash=sha256:bb\n"
    with pytest.raises(ValueError, match="colorama"):
        build.part_of_the_lock(lock, {"colorama", "click"}, arch)


def test_what_the_gateway_needs_is_found_with_its_extras() -> None:
    """And nothing of an extra that is not wanted."""
    assert {"uvloop", "numpy", "python-snap7"} <= build.closure(["s7"], "x86_64")
    assert not {"python-snap7", "pyarrow", "strawberry-graphql"} & build.closure([], "x86_64")


def test_labels_are_written_into_what_is_built() -> None:
    """Version, revision and base are in the Containerfile of the context itself, so that whoever builds it gets the right labels."""
    filled = build.filled((HERE / "Containerfile").read_text(), {"VERSION": "9.9", "BASE": "debian@sha256:ab"})
    assert "\nARG VERSION=9.9\n" in filled
    assert filled.count("ARG BASE=debian@sha256:ab\n") == 1
    assert "\nFROM debian@sha256:ab AS build\n" in filled
    assert 'image.version="9.9"' in filled
