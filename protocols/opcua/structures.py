"""Structured values: what a server says its types are, and how one field is found in the bytes of a value. Pure.

A server describes a structure by its DataTypeDefinition (OPC 10000-3, 8.48): names, types and order of its fields, which of
them may be missing, whether it is a union. From that a value's bytes are read as data. Nothing is compiled, and no name that a
server gives is ever more than a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from protocols.opcua.binary import (
    DATETIME,
    EXTENSION,
    INT32,
    MAX_DEPTH,
    MAX_KEPT,
    NUMBERS,
    UINT32,
    Extension,
    Kept,
    Malformed,
    Packed,
    Reader,
)
from protocols.opcua.nodes import NodeId

STRUCTURE_DEFINITION: Final = NodeId(0, 122)
ENUM_DEFINITION: Final = NodeId(0, 123)
MAX_FIELDS: Final = 1000
PLAIN, WITH_OPTIONAL, UNION, PLAIN_SUBTYPED, UNION_SUBTYPED = range(5)
"""StructureType (8.49)."""
MAX_BUILTIN: Final = 25


class Field(NamedTuple):
    name: str
    data_type: NodeId
    rank: int
    """-1 for one value, 1 or more for an array."""
    optional: bool


class Structure(NamedTuple):
    encoding: NodeId
    """The id that stands before a value's bytes."""
    base: NodeId
    form: int
    fields: tuple[Field, ...]


class Types(NamedTuple):
    """The types of one server that its values need."""

    structures: dict[NodeId, Structure]
    """By data type."""
    encodings: dict[NodeId, Structure]
    """By the id of the binary encoding."""
    builtins: dict[NodeId, int]
    """Data types that are a builtin one in the end: enumerations, Duration, UtcTime, ..."""

    @classmethod
    def none(cls) -> Types:
        return cls({}, {}, {})

    def add(self, data_type: NodeId, structure: Structure) -> None:
        self.structures[data_type] = structure
        self.encodings[structure.encoding] = structure


class Absent(LookupError):
    """The value has no such field or element."""


def definition(part: Extension) -> Structure | None:
    """A DataTypeDefinition; None for what is no structure (an enumeration). Raises Malformed."""
    if part.encoding != STRUCTURE_DEFINITION:
        return None
    reader = Reader(part.body)
    encoding, base, form = reader.node_id(), reader.node_id(), reader.number(INT32)
    count = reader.count()
    if count > MAX_FIELDS or not PLAIN <= form <= UNION_SUBTYPED:
        raise Malformed(f"a structure of form {form} with {count} fields")
    return Structure(encoding, base, form, tuple(_field(reader) for _ in range(count)))


def _field(reader: Reader) -> Field:
    name = reader.string() or ""
    reader.localized()
    data_type, rank = reader.node_id(), reader.number(INT32)
    for _ in range(reader.count()):
        reader.take(4)  # dimensions
    reader.uint32()  # longest string
    return Field(name, data_type, rank, bool(reader.byte()))


def fields(value: Extension, types: Types, depth: int = 0) -> dict[str, Any]:  # Any: whatever the fields' types make
    """All fields of a structured value that are there. Raises Malformed; Absent where its type is not known."""
    structure = types.encodings.get(value.encoding)
    if structure is None:
        raise Absent(f"a structure of type {value.encoding}, which the server does not describe")
    return _read(Reader(value.body), structure, types, depth)


def _read(reader: Reader, structure: Structure, types: Types, depth: int) -> dict[str, Any]:  # Any: as above
    if depth > MAX_DEPTH:
        raise Malformed("structures in structures without end")
    if structure.form in (UNION, UNION_SUBTYPED):
        switch = reader.uint32()
        if switch > len(structure.fields):
            raise Malformed(f"a union of {len(structure.fields)} fields says that it is the field {switch}")
        chosen = structure.fields[switch - 1 : switch] if switch else ()
        return {field.name: _value(reader, field, structure, types, depth) for field in chosen}
    mask = reader.uint32() if structure.form == WITH_OPTIONAL else 0
    found: dict[str, Any] = {}  # Any: as above
    for field in structure.fields:
        if structure.form == WITH_OPTIONAL and field.optional:
            is_there, mask = mask & 1, mask >> 1
            if not is_there:
                continue
        found[field.name] = _value(reader, field, structure, types, depth)
    return found


def _value(reader: Reader, field: Field, within: Structure, types: Types, depth: int) -> Any:  # Any: as above
    subtyped = within.form in (PLAIN_SUBTYPED, UNION_SUBTYPED) and field.optional  # any subtype: each says its own type
    inner = None if subtyped else types.structures.get(field.data_type)
    builtin = EXTENSION if subtyped else builtin_of(field.data_type, types)
    if inner is None and builtin == 0:
        raise Absent(f"the field {field.name} is of type {field.data_type}, which the server does not describe")
    if field.rank < 1:
        return _read(reader, inner, types, depth + 1) if inner else reader.scalar(builtin, depth)
    return _array(reader, inner, builtin, types, depth)


def _array(reader: Reader, inner: Structure | None, builtin: int, types: Types, depth: int) -> Packed | Kept:
    count: int = reader.number(INT32)
    if inner is None:
        reader.at -= 4
        count = reader.count()
        if builtin in NUMBERS:
            return Packed(builtin, count, reader.take(count * NUMBERS[builtin].size))
    kept = Kept()
    kept.length = max(count, 0)
    for at in range(count):
        began = reader.at
        value = _read(reader, inner, types, depth + 1) if inner else reader.scalar(builtin, depth)
        if reader.at == began:
            raise Malformed(f"{count} structures without a byte")
        if at < MAX_KEPT:
            kept.append(value)
    return kept


def builtin_of(data_type: NodeId, types: Types) -> int:
    """The builtin type that ``data_type`` is in the end; 0 where that is not known."""
    known = types.builtins.get(data_type)
    if known is not None:
        return known
    if data_type.namespace == 0 and isinstance(data_type.identifier, int):
        if data_type.identifier <= MAX_BUILTIN:
            return data_type.identifier
        return _STANDARD.get(data_type.identifier, 0)
    return 0


_STANDARD: Final[Mapping[int, int]] = {
    26: 24,  # Number: a variant
    27: 24,
    28: 24,
    29: INT32,  # Enumeration
    290: 11,  # Duration
    294: DATETIME,  # UtcTime
    295: 12,  # LocaleId
    311: 15,  # ApplicationInstanceCertificate
    288: UINT32,  # IntegerId
    289: UINT32,  # Counter
    521: 15,  # ContinuationPoint
    30: 15,  # Image
    12877: 12,  # NormalizedString
    12878: 12,  # DecimalString
    12881: 12,  # TimeString
    12880: 12,  # DurationString
    12879: 12,  # DateString
}
"""Data types of namespace 0 that are another name for a builtin one."""


def find(value: Any, steps: Sequence[str | int], types: Types) -> Any:  # Any: whatever the builtin type makes
    """What lies at the end of ``steps``. Raises Absent (no such field or element), Malformed."""
    for step in steps:
        if isinstance(value, Extension):
            value = fields(value, types)
        if isinstance(step, int):
            value = _element(value, step)
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            raise Absent(f"no field {step}")
    return value


def _element(value: Any, at: int) -> Any:  # Any: as above
    if isinstance(value, Packed) and at < value.length:
        return value.element(at)
    if isinstance(value, Kept) and at < len(value):
        return value[at]
    raise Absent(f"no element [{at}]")
