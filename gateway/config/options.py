"""Every option of a Struct as one row: what schema, sample and reference page have in common.

The rows are read from the Structs' annotations; nothing is written twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT

from gateway.config.explain import (
    TypeForm,
    expectation,
    fields_of,
    is_struct,
    item_of,
    meaning,
    members_of,
    unit_of,
    unwrap,
)
from gateway.config.load import SECRETS

Shape = type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a Struct."""

    key: str
    form: TypeForm
    required: bool
    default: Any
    """The value of an optional key, as users would write it."""
    meaning: str
    expected: str
    """What it asks for, in words; empty for nested shapes."""
    unit: str
    secret: bool
    several: bool
    """A list of what ``shapes`` says."""
    shapes: tuple[Shape, ...]
    """The Structs that it holds, empty for plain values."""
    examples: tuple[Any, ...]


def options_of(shape: Shape) -> list[Option]:
    """The keys of ``shape``, in the order in which they stand there."""
    return [_option(one) for one in fields_of(shape)]


def tag_of(shape: Shape) -> tuple[str, str] | None:
    """The key and the value that choose ``shape``: ``("type", "mqtt")``."""
    config = shape.__struct_config__
    return None if config.tag is None else (str(config.tag_field), str(config.tag))


def summary(shape: Shape) -> str:
    """The first paragraph of the Struct's own description, on one line."""
    return " ".join((shape.__doc__ or "").strip().split("\n\n")[0].split()).replace("``", "`")


def _option(field: msgspec.structs.FieldInfo) -> Option:
    core, metas = unwrap(field.type)
    inner = item_of(core)
    shapes = tuple(one for one in members_of(unwrap(inner if inner is not None else core)[0]) if is_struct(one))
    return Option(
        key=field.encode_name,
        form=field.type,
        required=field.required,
        default=_default(field),
        meaning=meaning(field.type),
        expected="" if shapes else expectation(field.type),
        unit=unit_of(field.encode_name),
        secret=any(one in SECRETS for one in shapes),
        several=inner is not None,
        shapes=shapes,
        examples=tuple(example for meta in metas for example in meta.examples or ()),
    )


def _default(field: msgspec.structs.FieldInfo) -> Any:  # Any: plain values of any kind
    if field.required:
        return None
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    return msgspec.to_builtins(value)


_PLAIN: Final = re.compile(r"(?:[A-Za-z]|\.{0,2}/)[A-Za-z0-9_./-]*")
_RESERVED: Final = re.compile(r"(?i:true|false|null|yes|no|on|off|y|n)")


def scalar(value: Any) -> str:  # Any: plain values of any kind
    """``value`` in YAML's flow style, the same for a YAML 1.1 and a YAML 1.2 reader."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and not _RESERVED.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.15g}" if abs(value) < 1e15 else repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {scalar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(one) for one in value) + "]"
    return json.dumps(value)


_SPANS: Final = (("days", 86400), ("hours", 3600), ("minutes", 60))
_SIZES: Final = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def spoken(value: Any, unit: str) -> str:  # Any: plain values of any kind
    """``value`` as documents show it: ``2592000 (30 days)``."""
    if value is None:
        return "none"
    text = scalar(value)
    table = {"seconds": _SPANS, "bytes": _SIZES}.get(unit)
    if table is None or not isinstance(value, int | float):
        return text
    fits = (f"{value / size:g} {name}" for name, size in table if value >= 2 * size or (unit == "bytes" and value >= size))
    return f"{text} ({clear})" if (clear := next(fits, "")) else text
