"""The reference page of the Ansible roles: their arguments as declared, with the defaults where those stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROLES: Final = Path(__file__).resolve().parent.parent / "ansible/roles"
ORDER: Final = ("gateway", "hardening", "broker", "pki", "observability", "console", "packages")
MARK: Final = re.compile(r"[CVOBIM]\(([^)]*)\)")
"""Ansible's own marks for words, such as C(site.json)."""

_Yaml = Mapping[str, Any]  # Any: YAML


def page(made: str) -> str:
    """All roles, each with a table for each of its entry points."""
    head = [
        "# Ansible roles",
        "",
        made,
        "Arguments of the roles of the collection `holdfast.gateway`. What is needed has no default.",
        "",
    ]
    return "\n".join([*head, *(line for role in ORDER for line in _role(role))])


def _role(role: str) -> Iterator[str]:
    entries = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text()) or {}
    told: set[str] = set()
    yield from (f"## {role}", "")
    for name, entry in entries.items():
        options = {key: option for key, option in (entry.get("options") or {}).items() if key not in told}
        told |= set(options)
        if name != "main":
            yield from (f"### {role}, `tasks_from: {name}`", "")
        yield from (f"{_text(entry['short_description'])}. {_text(entry.get('description', ''))}".strip(), "")
        if options:
            yield from ("| argument | type | default | meaning |", "|---|---|---|---|")
            yield from _rows(options, defaults, "")
            yield ""


def _rows(options: _Yaml, defaults: _Yaml, within: str) -> Iterator[str]:
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        choices = option.get("choices")
        meaning = _text(option["description"]) + (f" One of {', '.join(f'`{one}`' for one in choices if one != '')}." if choices else "")
        yield f"| `{within}{name}` | {kind} | {_default(name, option, defaults)} | {meaning} |"
        yield from _rows(option.get("options", {}), {}, f"{within}{name}.")


def _default(name: str, option: _Yaml, defaults: _Yaml) -> str:
    if option.get("required"):
        return "needed"
    value = defaults.get(name, option.get("default"))
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"`{shown.strip()}`".replace("|", "\\|").replace("\n", " ") if value not in (None, "") else "none"


def _text(said: str | list[str]) -> str:
    joined = said if isinstance(said, str) else " ".join(said)
    return MARK.sub(r"`\1`", joined.strip()).replace("|", "\\|")
