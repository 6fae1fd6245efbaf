"""What the options of every driver have in common: names, hosts, the keys of a tag, and what is wrong with them.

A driver's own tag is a :class:`TagOptions` with a key more that says *where* the value lies. What kind a value has for
everybody behind the driver, and how it is reported, is said here once for all protocols.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from protocols.contract import Problem
from protocols.model import Kind, Tag

NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,126}$"
Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="A name without / + # so that it can be part of a topic.")]
Host = Annotated[str, Meta(min_length=1, max_length=253, description="Host name or IP address.")]
TagName = Annotated[str, Meta(pattern=r"^[^+#\x00-\x1f\x7f]{1,255}$", description="Name of the tag, unique in its device; / groups.")]

TEXT: Final = (Kind.STRING, Kind.BYTES)


class TagOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value of a device. Not a type of its own: each driver says where the value lies."""

    name: TagName
    kind: Annotated[Kind, Meta(description="What the device holds; a scaled number is a float64 for everybody else.")]
    unit: Annotated[str, Meta(max_length=64, description="Engineering unit, after scaling.")] = ""
    scale: Annotated[float, Meta(description="value = raw * scale + offset.")] = 1.0
    offset: Annotated[float, Meta(description="value = raw * scale + offset.")] = 0.0
    writable: Annotated[bool, Meta(description="Whether commands may write it.")] = False
    minimum: Annotated[float | None, Meta(description="Least value that a command may write, in the tag's unit.")] = None
    maximum: Annotated[float | None, Meta(description="Greatest value that a command may write, in the tag's unit.")] = None
    deadband: Annotated[float, Meta(ge=0, description="A change up to this size is not reported, in the tag's unit.")] = 0.0
    deadband_percent: Annotated[
        float, Meta(ge=0, le=100, description="A change up to this share of the last reported value is not reported, in percent.")
    ] = 0.0
    max_silence_s: Annotated[
        float, Meta(ge=0, description="A value is reported at least this often, in seconds; 0 reports every scan.")
    ] = 600.0

    @property
    def is_scaled(self) -> bool:
        return self.scale != 1.0 or self.offset != 0.0

    @property
    def kind_after_scaling(self) -> Kind:
        return Kind.FLOAT64 if self.is_scaled else self.kind

    def tag(self, scan_s: float = 0.0) -> Tag:
        """The tag as everybody behind the driver sees it. ``scan_s`` is its period; 0 where the device decides."""
        return Tag(
            name=self.name,
            kind=self.kind_after_scaling,
            unit=self.unit,
            writable=self.writable,
            scan_s=scan_s,
            deadband=self.deadband,
            deadband_percent=self.deadband_percent,
            max_silence_s=self.max_silence_s,
        )


class Named(Protocol):
    """Anything that has to have a name of its own among its like."""

    @property
    def name(self) -> str: ...


def error(path: str, message: str, advice: str) -> Problem:
    return Problem(path=path, message=message, advice=advice)


def warning(path: str, message: str, advice: str) -> Problem:
    return Problem(path=path, message=message, advice=advice, severity="warning")


def unique_names(named: Sequence[Named], path: str, what: str) -> Iterator[Problem]:
    """An error for each of ``named`` (the list at ``path``, each a ``what``) whose name an earlier one has."""
    places: dict[str, int] = {}
    for at, each in enumerate(named):
        if places.setdefault(each.name, at) != at:
            yield error(f"{path}[{at}].name", f"{path}[{places[each.name]}] is called {each.name!r} too", f"give each {what} its own name")


def tag_problems(tag: TagOptions, path: str) -> Iterator[Problem]:
    """What is wrong with the keys that every tag has."""
    for field in ("scale", "offset"):
        value = getattr(tag, field)
        if not math.isfinite(value) or (field == "scale" and value == 0):
            yield error(f"{path}.{field}", f"{field} is {value:g}", "write a number that is not infinite, and a scale that is not 0")
        elif value != (1.0 if field == "scale" else 0.0) and tag.kind in (*TEXT, Kind.BOOL):
            yield error(f"{path}.{field}", f"a {tag.kind} cannot be scaled", f"take {field} away")
    if tag.minimum is not None and tag.maximum is not None and tag.minimum > tag.maximum:
        yield error(f"{path}.minimum", f"minimum {tag.minimum:g} is above maximum {tag.maximum:g}", "nothing could be written: swap them")
    if (tag.deadband or tag.deadband_percent) and tag.kind in (*TEXT, Kind.BOOL):
        yield warning(f"{path}.deadband", f"a deadband has no meaning for {tag.kind}", "take it away")
    if (tag.minimum is not None or tag.maximum is not None) and not tag.writable:
        yield warning(f"{path}.minimum", "minimum and maximum bound what commands write, and this tag is not writable", "take them away")
