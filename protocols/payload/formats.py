"""The forms in which a device writes its values, and how media types and CoAP content formats name them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Format(StrEnum):
    """What ``format:`` takes. AUTO is none itself: what comes with a payload says which it is."""

    AUTO = "auto"
    JSON = "json"
    CBOR = "cbor"
    SENML_JSON = "senml-json"
    SENML_CBOR = "senml-cbor"
    TEXT = "text"
    CSV = "csv"
    XML = "xml"
    RAW = "raw"
    SPARKPLUG = "sparkplug"


MEDIA_TYPES: Final[dict[str, Format]] = {
    "application/json": Format.JSON,
    "text/json": Format.JSON,
    "application/cbor": Format.CBOR,
    "application/senml+json": Format.SENML_JSON,
    "application/senml+cbor": Format.SENML_CBOR,
    "text/plain": Format.TEXT,
    "text/csv": Format.CSV,
    "application/xml": Format.XML,
    "text/xml": Format.XML,
    "application/octet-stream": Format.RAW,
}
MEDIA_TYPE_OF: Final[dict[Format, str]] = {
    Format.JSON: "application/json",
    Format.CBOR: "application/cbor",
    Format.SENML_JSON: "application/senml+json",
    Format.SENML_CBOR: "application/senml+cbor",
    Format.TEXT: "text/plain;charset=utf-8",
    Format.CSV: "text/csv",
    Format.XML: "application/xml",
    Format.RAW: "application/octet-stream",
    Format.SPARKPLUG: "application/octet-stream",
}
"""What a command's payload is announced as."""

COAP_FORMATS: Final[dict[int, Format]] = {
    0: Format.TEXT,
    41: Format.XML,
    42: Format.RAW,
    50: Format.JSON,
    60: Format.CBOR,
    110: Format.SENML_JSON,
    112: Format.SENML_CBOR,
}
"""Content formats (IANA, CoRE parameters)."""
COAP_FORMAT_OF: Final[dict[Format, int]] = {format: number for number, format in COAP_FORMATS.items()}

_SUFFIXES: Final = {"+json": Format.JSON, "+cbor": Format.CBOR, "+xml": Format.XML}
"""Structured syntax suffixes (RFC 6839, RFC 8949)."""


def format_of_media_type(media_type: str) -> Format | None:
    """The format that a media type names, parameters and case aside; None where it is none of ours."""
    name = media_type[:200].partition(";")[0].strip().lower()
    found = MEDIA_TYPES.get(name)
    if found is None:
        found = next((format for suffix, format in _SUFFIXES.items() if name.endswith(suffix)), None)
    return found


def format_of_coap(number: int) -> Format | None:
    """The format that a CoAP content format names; None where it is none of ours."""
    return COAP_FORMATS.get(number)
