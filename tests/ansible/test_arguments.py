"""A role's arguments are declared, typed and described in meta/argument_specs.yml; their defaults stand in defaults/main.yml alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROLES: Final = Path(__file__).parents[2] / "ansible/roles"
NAMES: Final = sorted(path.parent.parent.name for path in ROLES.glob("*/meta/argument_specs.yml"))


def read(path: Path) -> dict[str, Any]:  # Any: YAML
    return yaml.safe_load(path.read_text()) or {}


def declared(role: str) -> dict[str, dict[str, Any]]:
    """The arguments of all its entry points."""
    specs = read(ROLES / role / "meta/argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


@pytest.mark.parametrize("role", NAMES)
def test_no_default_is_written_twice_and_each_is_declared(role: str) -> None:
    options = declared(role)
    assert set(read(ROLES / role / "defaults/main.yml")) - set(options) == set()
    assert [name for name, option in options.items() if "default" in option] == []


@pytest.mark.parametrize("role", NAMES)
def test_what_must_be_given_has_no_default(role: str) -> None:
    defaults = read(ROLES / role / "defaults/main.yml")
    assert [name for name, option in declared(role).items() if option.get("required") and name in defaults] == []


@pytest.mark.parametrize("role", NAMES)
def test_every_argument_is_named_after_its_role_typed_and_described(role: str) -> None:
    for name, option in declared(role).items():
        assert name.startswith(f"{role}_")
        assert option.get("type"), name
        assert option.get("description"), name
        assert option.get("required") or name in read(ROLES / role / "defaults/main.yml"), f"{name} has no default"
