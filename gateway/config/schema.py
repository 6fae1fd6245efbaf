"""The JSON Schema (2020-12) of a site, for editors, forms and other people's tools.

It is msgspec's schema of the Structs, joined with those of the installed drivers. Beyond the standard it says, on each
key: ``x-secret`` where a secret reference is expected, and ``x-unit`` where the key's name carries a unit.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.config import templates
from gateway.config.drivers import Drivers, installed, usable
from gateway.config.model import Site
from gateway.config.options import Option, Shape, options_of, tag_of

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]  # JSON


def schema(*, drivers: Drivers | None = None) -> Schema:
    """The schema of a whole document, with the connections of all drivers that can be used."""
    used = usable(installed() if drivers is None else drivers)
    shapes = [driver.options for _, driver in sorted(used.items())]
    (site, *connections), definitions = msgspec.json.schema_components([Site, *shapes], ref_template="#/$defs/{name}")
    root = definitions.pop(site["$ref"].removeprefix("#/$defs/"))
    _annotate(root, Site)
    root["properties"]["connections"]["items"] = _choice([tag for one in shapes if (tag := tag_of(one))], connections)
    for shape in all_shapes([Site, *shapes]):
        if (definition := definitions.get(shape.__name__)) is not None:
            _annotate(definition, shape)
    _templates(
        definitions,
        {tag: reference for reference, shape in zip(connections, shapes, strict=True) for _, tag in [tag_of(shape) or ("", "")]},
    )
    whole: Schema = _plain_text({"$schema": DIALECT, "$id": "urn:holdfast:site:1", **root, "$defs": dict(sorted(definitions.items()))})
    return whole


def _templates(definitions: dict[str, Schema], connections: dict[str, Schema]) -> None:
    """A device that templates describe has three keys more; beside a template a tag of its own needs no more than its name."""
    for tag, reference in connections.items():
        if not tag.startswith(templates.PROTOCOLS):
            continue
        devices = definitions[_name(reference)]["properties"]["devices"]
        device = definitions[_name(devices["items"])]
        if "if" in device:
            continue  # another connection's, too
        for key, (_, meaning, form) in templates.OPTIONS.items():
            device["properties"][key] = {"description": meaning, **form}
        whole = device["properties"]["tags"].pop("items")
        device["if"] = {"required": ["template"]}
        device["then"] = {"properties": {"tags": {"items": {"type": "object", "required": ["name"]}}}}
        device["else"] = {"properties": {"tags": {"items": whole}}}


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")


def all_shapes(roots: list[Shape]) -> list[Shape]:
    """``roots`` and every Struct below them, each once, outer first."""
    found: dict[Shape, None] = {}
    waiting = list(roots)
    while waiting:
        shape = waiting.pop(0)
        if shape not in found:
            found[shape] = None
            waiting.extend(one for option in options_of(shape) for one in option.shapes)
    return list(found)


def _choice(tags: list[tuple[str, str]], references: list[Schema]) -> Schema:
    if not references:
        return {"not": {}}  # no driver: no connection is right
    mapping = {tag: reference["$ref"] for (_, tag), reference in zip(tags, references, strict=True)}
    return {"anyOf": references, "discriminator": {"propertyName": "type", "mapping": mapping}}


def _annotate(definition: Schema, shape: Shape) -> None:
    properties = definition.get("properties", {})
    for option in options_of(shape):
        properties[option.key] = {**_described(properties[option.key], option), **_extras(option)}


def _described(property_: Schema, option: Option) -> Schema:
    """A description on every key, so that editors show one even where the key only points at a definition."""
    return property_ if "description" in property_ or not option.meaning else {"description": option.meaning, **property_}


def _extras(option: Option) -> Schema:
    return {**({"x-secret": True} if option.secret else {}), **({"x-unit": option.unit} if option.unit else {})}


def _plain_text(value: Any) -> Any:  # Any: JSON
    """Docstrings' double backticks as people write them."""
    if isinstance(value, str):
        return value.replace("``", "`")
    if isinstance(value, dict):
        return {key: _plain_text(one) for key, one in value.items()}
    return [_plain_text(one) for one in value] if isinstance(value, list) else value
