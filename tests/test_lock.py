"""The lock files hold what ``pyproject.toml`` asks for, and every dependency has its reason written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())  # Any: TOML
EXTRAS: Final = [text for name, extra in PROJECT["project"]["optional-dependencies"].items() if name != "all" for text in extra]
SHIPPED: Final = [Requirement(text) for text in (*PROJECT["project"]["dependencies"], *EXTRAS) if not text.startswith("holdfast")]
DEVELOPMENT: Final = [Requirement(text) for text in PROJECT["dependency-groups"]["dev"]]


def locked(name: str) -> dict[str, list[str]]:
    """Package to its locked versions (one for each range of Pythons)."""
    found: dict[str, list[str]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", (ROOT / name).read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(package), []).append(version)
    return found


def _is_met(wanted: Requirement, versions: list[str]) -> bool:
    return bool(versions) and all(wanted.specifier.contains(version) for version in versions)


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [("requirements.lock", SHIPPED), ("requirements-dev.lock", [*SHIPPED, *DEVELOPMENT])],
    ids=["shipped", "development"],
)
def test_the_lock_satisfies_the_project(lock: str, wanted: list[Requirement]) -> None:
    """Every direct dependency is locked, at versions that the project allows; otherwise run ``make lock``."""
    versions = locked(lock)
    wrong = [str(each) for each in wanted if not _is_met(each, versions.get(canonicalize_name(each.name), []))]
    assert not wrong


def test_development_and_service_use_the_same_versions() -> None:
    """What is tested is what runs: the two locks agree."""
    shipped, development = locked("requirements.lock"), locked("requirements-dev.lock")
    assert shipped.items() <= development.items()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_its_hash(lock: str) -> None:
    """Nothing is installed that is not the very bytes that were locked."""
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)
    assert not [entry.split()[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry]


def test_every_dependency_has_its_reason() -> None:
    """The decision on dependencies names each of them."""
    told = "\n".join(page.read_text() for page in (ROOT / "docs/decisions").glob("*.md")).lower()
    unexplained = [each.name for each in (*SHIPPED, *DEVELOPMENT) if each.name.lower() not in told and not each.name.startswith("types-")]
    assert not unexplained
