"""What is wrong with the places of a payload: each compiled once, in the format in which it will be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from protocols.contract import Problem
from protocols.model import Kind
from protocols.options import error, tag_problems, unique_names, warning
from protocols.payload.formats import Format
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.payload.readers import make_reader
from protocols.payload.trouble import BadPlace
from protocols.payload.writing import template_problem

_DOCUMENTS: Final = (Format.JSON, Format.CBOR, Format.AUTO)
_TIMED: Final = (*_DOCUMENTS, Format.CSV, Format.XML, Format.RAW)


def check(tags: Sequence[PayloadTag], options: PayloadOptions, path: str, payload_path: str) -> Iterator[Problem]:
    """All problems of ``tags`` (their list stands at ``path``) and of ``options`` (which stand at ``payload_path``)."""
    yield from unique_names(tags, path, "tag of a device")
    yield from payload_problems(options, payload_path)
    for at, tag in enumerate(tags):
        yield from problems_of_tag(tag, options, f"{path}[{at}]")


def problems_of_tag(tag: PayloadTag, options: PayloadOptions, path: str) -> Iterator[Problem]:
    """What is wrong with one tag at ``path``."""
    yield from tag_problems(tag, path)
    if trouble := place_problem(tag, options):
        yield error(f"{path}.at", str(trouble), trouble.advice)
    if tag.write_as:
        message = template_problem(tag, options)
        if message:
            yield error(f"{path}.write_as", message, 'write what the device takes, with {value} in its place: {"target": {value}}')
        if not tag.writable:
            yield warning(f"{path}.write_as", "the tag is not writable", "write writable: true, or take write_as away")
    if tag.from_text and options.format not in (*_DOCUMENTS, Format.SPARKPLUG):
        yield warning(f"{path}.from_text", f"everything is text in {options.format}", "take from_text away")
    if tag.kind is Kind.BYTES and options.format is Format.JSON and not tag.from_text:
        yield error(f"{path}.kind", "json holds no bytes", "write from_text: true if the device writes base64, or kind: string")


def place_problem(tag: PayloadTag, options: PayloadOptions) -> BadPlace | None:
    """Why ``tag.at`` cannot be read; None where it can. With auto it has to make sense in one format at least."""
    if options.format is Format.AUTO:
        formats: tuple[Format, ...] = (Format.JSON,) if tag.at.startswith("$") or not tag.at else (Format.SENML_JSON,)
    else:
        formats = (options.format,)
    first: BadPlace | None = None
    for format in formats:
        try:
            make_reader(format, [(0, tag)], PayloadOptions(csv_header=options.csv_header))
        except BadPlace as trouble:
            first = first or trouble
        else:
            return None
    return first


def payload_problems(options: PayloadOptions, path: str) -> Iterator[Problem]:
    """What is wrong with the options of a payload that stand at ``path``."""
    format = Format.JSON if options.format is Format.AUTO else options.format
    if options.time_at:
        if options.format not in _TIMED:
            yield error(f"{path}.time_at", f"{options.format} has its time in a place of its own, or none", "take time_at away")
        else:
            yield from _compiled(format, msgspec.structs.replace(options, records_at=""), f"{path}.time_at")
    elif options.time_format != "auto":
        yield warning(f"{path}.time_format", "there is no time_at", "say where the time stands, or take time_format away")
    if options.records_at:
        if options.format not in _DOCUMENTS:
            yield error(f"{path}.records_at", f"{options.format} has no records to be looked for", "take records_at away")
        else:
            yield from _compiled(format, msgspec.structs.replace(options, time_at=""), f"{path}.records_at")


def _compiled(format: Format, options: PayloadOptions, path: str) -> Iterator[Problem]:
    try:
        make_reader(format, [], options)
    except BadPlace as trouble:
        yield error(path, str(trouble), trouble.advice)
