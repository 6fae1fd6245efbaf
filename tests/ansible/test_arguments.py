"""What a role's arguments say of their defaults is what its defaults are: each is declared, and written twice only under this test."""

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
def test_every_default_is_declared_as_it_is(role: str) -> None:
    defaults, options = read(ROLES / role / "defaults/main.yml"), declared(role)
    assert set(defaults) - set(options) == set()
    told = {name: option.get("default") for name, option in options.items() if name in defaults and not option.get("required")}
    assert told == {name: defaults[name] for name in told}


@pytest.mark.parametrize("role", NAMES)
def test_every_argument_is_named_after_its_role_typed_and_described(role: str) -> None:
    for name, option in declared(role).items():
        assert name.startswith(f"{role}_")
        assert option.get("type"), name
        assert option.get("description"), name
        assert option.get("required") or name in read(ROLES / role / "defaults/main.yml"), f"{name} has no default"
