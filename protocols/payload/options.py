"""How a device's payload is read: its format, where its time stands, where each tag's value lies. Nothing here runs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocols.options import TagOptions
from protocols.payload.formats import Format

LARGEST_PAYLOAD: Final = 16 * 1024 * 1024

TimeFormat = Literal["auto", "iso8601", "s", "ms", "us", "ns"]


class PayloadTag(TagOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value in a payload."""

    at: Annotated[
        str,
        Meta(
            max_length=1024,
            description=(
                "Where it lies in the payload. json, cbor: a JSONPath ($.env.temperature). senml: the record's full name. csv: the column's"
                " name or #number. xml: /path/to/element or /path/@attribute. raw: byte and type (4:int16-le). sparkplug: the metric's"
                " name. text: empty, the whole payload."
            ),
        ),
    ] = ""
    from_text: Annotated[
        bool,
        Meta(description="json, cbor, sparkplug: the device writes this number, truth (on, off, true, ...) or bytes (base64) as text."),
    ] = False
    write_as: Annotated[
        str,
        Meta(
            max_length=4096,
            description='What a command sends, with {value} in the value\'s place: {"target": {value}}. Empty sends the value alone.',
        ),
    ] = ""


class PayloadOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the payloads of one device are read."""

    format: Annotated[
        Format,
        Meta(description="auto: by the media type or content format that comes with the payload, json where none does."),
    ] = Format.AUTO
    records_at: Annotated[
        str,
        Meta(
            max_length=1024,
            description="json, cbor: JSONPath of the records where one payload carries several times ($.samples[*]); at and time_at then"
            " begin at each record.",
        ),
    ] = ""
    time_at: Annotated[
        str,
        Meta(max_length=1024, description="Where the source's time stands, written as at of a tag; empty takes the time of arrival."),
    ] = ""
    time_format: Annotated[
        TimeFormat, Meta(description="auto: ISO 8601, or a count since 1970 whose unit its size tells. A time without zone is UTC.")
    ] = "auto"
    missing: Annotated[
        Literal["bad", "keep"],
        Meta(description="What a tag becomes that a payload lacks. keep: its last value stands, for devices that send what changed."),
    ] = "bad"
    csv_delimiter: Annotated[str, Meta(min_length=1, max_length=1, description="What parts the columns of csv.")] = ","
    csv_header: Annotated[bool, Meta(description="Whether the first line of csv names the columns.")] = True
    max_bytes: Annotated[int, Meta(ge=1, le=LARGEST_PAYLOAD, description="Longest payload that is read, in bytes.")] = 1_000_000
