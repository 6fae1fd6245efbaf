"""An example of what a JSON Schema describes, made from the examples that stand in it. Pure, and the same each time."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]  # Any: JSON
DEEPEST: Final = 12
_PLAIN: Final[dict[str, Any]] = {"null": None, "boolean": False, "integer": 0, "number": 0.0, "string": ""}


def example_of(schema: Json, schemas: Json, name: str = "", depth: int = 0) -> Any:  # Any: JSON
    """One value that fits ``schema``; ``schemas`` are what it refers to, ``name`` is what a text without an example says."""
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("example", "const", "default"):
        if key in schema and schema[key] not in ("", [], {}):
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    if depth > DEEPEST:
        return None
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name, depth + 1)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return example_of(next((one for one in schema[key] if one.get("type") != "null"), schema[key][0]), schemas, name, depth + 1)
    return _of_type(schema, schemas, name, depth)


def _of_type(schema: Json, schemas: Json, name: str, depth: int) -> Any:  # Any: JSON
    kind = schema.get("type")
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        required = set(schema.get("required", ()))
        made = {key: example_of(one, schemas, key, depth + 1) for key, one in schema.get("properties", {}).items()}
        return {key: one for key, one in made.items() if one is not None or key in required}
    if kind == "array":
        return [] if schema.get("maxItems") == 0 or "items" not in schema else [example_of(schema["items"], schemas, name, depth + 1)]
    if kind == "string":
        return "" if name in ("detail", "trouble") else name[: schema.get("maxLength", 255)].ljust(schema.get("minLength", 0), "x")
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        return min(least, schema["maximum"]) if "maximum" in schema else least
    return _PLAIN.get(kind or "null")
