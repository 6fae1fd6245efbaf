"""Devices of a document that name a template, written out as the driver's Struct wants them.

What is written in the document wins over the template; a device's own tags come first, in their order, so that paths and
lines of what is said about them are those of the document. What is said about a template's tag is said at the key
``template``, with the tag's name.

Templates lie in Holdfast and, before those, in the folder ``templates`` beside the document.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from gateway.config.document import Path, Plain, quote, show, steps
from protocols.contract import Problem
from protocols.templates.device import KEYS, make
from protocols.templates.library import Library, Unusable, own
from protocols.templates.shape import Template

FOLDER: Final = "templates"
"""Beside a site document: the site's own templates."""
PROTOCOLS: Final = "modbus-"
"""Connections of these types have devices that templates describe."""
MAX_TAGS: Final = 150_000
"""Of all devices together, as many as a document can hold that writes them out: a few lines must not stand for endless memory."""

OPTIONS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {  # Any: JSON Schema
    "template": ("text", "Name of a device template, which gives what is not written here.", {"type": "string", "maxLength": 255}),
    "answers": ("a mapping", "Answers to the template's questions; the rest take their defaults.", {"type": "object"}),
    "template_tags": (
        "list of text",
        "Which of the template's tags, as patterns (power/*); all where it is left out.",
        {"type": "array", "items": {"type": "string"}},
    ),
}
"""The keys of a device that are about its template: what is expected, meaning, schema."""


def library(source: FilePath | str | bytes) -> Library:
    """The templates that a document at ``source`` may name."""
    if not isinstance(source, bytes) and (folder := FilePath(source).parent / FOLDER).is_dir():
        return Library([folder])
    return own()


@dataclass(slots=True)
class Expanded:
    """A document with its templates written out."""

    value: Plain
    problems: list[Problem] = field(default_factory=list)
    tags: int = 0
    """Of templates, in the whole document."""
    _made: dict[Path, tuple[str, int, list[str]]] = field(default_factory=dict)
    """By the device's path: template, number of own tags, names of all."""

    def as_written(self, problem: Problem) -> Problem:
        """``problem`` of the written-out document, at its place in the document."""
        path = steps(problem.path)
        device, rest = path[:4], path[4:]
        if device not in self._made:
            return problem
        name, own_tags, names = self._made[device]
        if len(rest) < 2 or rest[0] != "tags" or not isinstance(rest[1], int) or rest[1] < own_tags:
            return problem
        message = f"{names[rest[1]]} of template {name}: {problem.message}"
        return Problem(show((*device, "template")), message, problem.advice, problem.severity)


def expand(value: Plain, templates: Library) -> Expanded:
    """``value`` with every device that names a template written out; what is not as it should be stays for others to say."""
    expanded = Expanded(value)
    connections = value.get("connections") if isinstance(value, dict) else None
    if not isinstance(connections, list):
        return expanded
    made = [_connection(one, ("connections", at), templates, expanded) for at, one in enumerate(connections)]
    if expanded.tags > MAX_TAGS:
        say = f"the templates of this document give more than {MAX_TAGS} tags"
        advice = "take fewer with template_tags, or split the site over several gateways"
        return Expanded({**value, "connections": []}, [Problem("connections", say, advice)])
    if any(new is not old for new, old in zip(made, connections, strict=True)):
        expanded.value = {**value, "connections": made}
    return expanded


def _connection(connection: Plain, path: Path, templates: Library, expanded: Expanded) -> Plain:
    if not isinstance(connection, dict) or not str(connection.get("type", "")).startswith(PROTOCOLS):
        return connection
    devices = connection.get("devices")
    if not isinstance(devices, list) or not any(isinstance(one, dict) and not KEYS.isdisjoint(one) for one in devices):
        return connection
    return {**connection, "devices": [_device(one, (*path, "devices", at), templates, expanded) for at, one in enumerate(devices)]}


def _device(device: Plain, path: Path, templates: Library, expanded: Expanded) -> Plain:
    if not isinstance(device, dict) or KEYS.isdisjoint(device):
        return device
    bare = {key: one for key, one in device.items() if key not in KEYS}
    template = _template(device, path, templates, expanded) if expanded.tags <= MAX_TAGS else None
    if template is None:
        return bare
    made, problems = make(template, device)
    expanded.problems += [_at(path, problem) for problem in problems]
    if problems:
        return bare
    tags = made.get("tags", [])
    if not isinstance(tags, list):
        return made
    expanded.tags += len(tags)
    own_tags = len(device.get("tags", []))
    expanded._made[path] = (template.name, own_tags, [str(tag.get("name")) if isinstance(tag, dict) else "" for tag in tags])
    return made


def _template(device: dict[str, Plain], path: Path, templates: Library, expanded: Expanded) -> Template | None:
    def say(key: str, message: str, advice: str) -> None:
        expanded.problems.append(Problem(show((*path, key)), message, advice))

    name = device.get("template")
    if "template" not in device:
        key = next(key for key in OPTIONS if key in device)
        say(key, f"there is no template that {key} could be about", "add template: NAME; holdfast template list shows them")
    elif not isinstance(name, str):
        say("template", "expected the name of a template", "holdfast template list shows them")
    else:
        try:
            template = templates[name]
        except KeyError:
            say(
                "template", f"there is no template {quote(name)}", "holdfast template list shows them; your own lie in the folder templates"
            )
        except Unusable as error:
            say("template", str(error), "")
        else:
            if not template.walk:
                return template
            advice = f"holdfast template try {name} --host HOST --as-device NAME prints them, to be written here"
            say("template", f"the tags of {name} are found in the device, not in the template", advice)
    return None


def _at(path: Path, problem: Problem) -> Problem:
    return Problem(show((*path, *steps(problem.path))), problem.message, problem.advice, problem.severity)
