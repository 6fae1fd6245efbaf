"""What a command sends: a value alone, or in a template, as the device's format writes it."""

from __future__ import annotations

import base64
import struct
from typing import Any, Final
from xml.sax.saxutils import escape

import cbor2
import msgspec

from protocols.model import Kind
from protocols.payload.formats import Format
from protocols.payload.layout import compile_layout
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.payload.readers import sum_place
from protocols.payload.trouble import BadPlace
from protocols.values import Unwritable, Value

MARK: Final = "{value}"
_WRITTEN: Final = (Format.JSON, Format.CBOR, Format.SENML_JSON, Format.SENML_CBOR, Format.TEXT, Format.CSV, Format.XML, Format.RAW)
_STAND_IN: Final = "\ue000value\ue000"
"""What stands for the value while a template is read as JSON; no template has it."""


def encode(value: Value, tag: PayloadTag, options: PayloadOptions, *, format: Format | None = None) -> bytes:
    """The payload that tells a device ``value`` (raw: ``values.raw_of``). ``format`` counts where the options say auto.

    Raises Unwritable.
    """
    format = (format or Format.JSON) if options.format is Format.AUTO else options.format
    try:
        match format:
            case Format.JSON:
                return _json(value, tag)
            case Format.CBOR:
                return cbor2.dumps(_filled(tag, value))
            case Format.SENML_JSON:
                return msgspec.json.encode([_senml(value, tag, binary=False)])
            case Format.SENML_CBOR:
                return cbor2.dumps([_senml(value, tag, binary=True)])
            case Format.RAW:
                return value if isinstance(value, bytes) and not tag.at else compile_layout(tag.at).write(value)
            case Format.TEXT | Format.CSV | Format.XML:
                text = as_text(value)
                told = escape(text, {'"': "&quot;"}) if format is Format.XML else text
                return (tag.write_as or MARK).replace(MARK, told).encode()
    except (BadPlace, ValueError, OverflowError, struct.error, TypeError) as error:
        raise Unwritable(f"the value cannot be written as {format} ({error})") from None
    raise Unwritable(f"nothing is written as {format}")


def as_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def template_problem(tag: PayloadTag, options: PayloadOptions) -> str:
    """What is wrong with ``tag.write_as``; empty where nothing is."""
    if MARK not in tag.write_as:
        return "it has no {value}: every command would say the same"
    if options.format not in (Format.JSON, Format.CBOR, Format.TEXT, Format.CSV, Format.XML, Format.AUTO):
        return f"{options.format} has no templates"
    if options.format in (Format.JSON, Format.CBOR, Format.AUTO):
        try:
            msgspec.json.decode(_marked(tag.write_as))
        except (msgspec.DecodeError, RecursionError) as error:
            return f"it is no JSON ({str(error)[:100]})"
    return ""


def _marked(template: str) -> bytes:
    return template.replace(f'"{MARK}"', MARK).replace(MARK, f'"{_STAND_IN}"').encode()


def _json(value: Value, tag: PayloadTag) -> bytes:
    told = as_text(value) if tag.from_text or isinstance(value, bytes) else value
    if not tag.write_as:
        return msgspec.json.encode(told)
    return tag.write_as.replace(f'"{MARK}"', MARK).encode().replace(MARK.encode(), msgspec.json.encode(told))


def _filled(tag: PayloadTag, value: Value) -> Any:  # Any: JSON, and bytes
    told = as_text(value) if tag.from_text and not isinstance(value, str) else value
    if not tag.write_as:
        return told
    return _replaced(msgspec.json.decode(_marked(tag.write_as)), told)


def _replaced(part: Any, value: Value) -> Any:  # Any: JSON
    if isinstance(part, dict):
        return {key: _replaced(inner, value) for key, inner in part.items()}
    if isinstance(part, list):
        return [_replaced(inner, value) for inner in part]
    return value if part == _STAND_IN else part


def _senml(value: Value, tag: PayloadTag, *, binary: bool) -> dict[Any, Any]:  # Any: text or numbers, see senml.LABELS
    name, _ = sum_place(tag.at)
    if tag.kind is Kind.BOOL:
        label, number, told = "vb", 4, value
    elif isinstance(value, str):
        label, number, told = "vs", 3, value
    elif isinstance(value, bytes):
        label, number = "vd", 8
        told = value if binary else base64.urlsafe_b64encode(value).rstrip(b"=").decode()
    else:
        label, number, told = "v", 2, value
    return {0: name, number: told} if binary else {"n": name, label: told}
