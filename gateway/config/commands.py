"""The Structs of commands: who may write which tag, within which limits, and when a command is too old to be believed.

The first rule that fits a device and a tag holds for it; where none does, ``default`` says whether it may be written at all. A rule
narrows what the tag itself allows (``writable``, ``minimum``, ``maximum``) and never widens it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.contract import Problem
from protocols.model import Device

Pattern = Annotated[str, Meta(min_length=1, max_length=255)]
Least = Literal["operator", "technician", "engineer", "administrator"]


class CommandRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What commands to some tags may do."""

    devices: Annotated[
        tuple[Pattern, ...], Meta(min_length=1, max_length=1000, description="Names of devices; * stands for any text, ? for any letter.")
    ] = ("*",)
    tags: Annotated[
        tuple[Pattern, ...], Meta(min_length=1, max_length=1000, description="Names of tags; * stands for any text, ? for any letter.")
    ] = ("*",)
    sources: Annotated[
        Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...], Meta(max_length=64)] | None,
        Meta(description="Who may write: api, shadow, rule, local, or the name of an uplink or a face; null: everybody, []: nobody."),
    ] = None
    least_role: Annotated[Least, Meta(description="Least role of a person or token that may write; uplinks and faces have none.")] = (
        "operator"
    )
    minimum: Annotated[float | None, Meta(description="Least value that may be written, in the tag's unit.")] = None
    maximum: Annotated[float | None, Meta(description="Greatest value that may be written, in the tag's unit.")] = None
    most_change: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Greatest distance between the value that was read last and the one written.")
    ] = None
    most_change_per_s: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Greatest distance for each second since the last command to the tag was sent."),
    ] = None
    least_interval_s: Annotated[float, Meta(ge=0, le=86400, description="Least time between two commands to the tag, in seconds.")] = 0.0
    needs_reason: Annotated[bool, Meta(description="Whether whoever asks has to say why.")] = False
    repeat: Annotated[
        Literal["auto", "always", "never"],
        Meta(description="Whether a command that was sent and not answered may be sent again; auto: all but a bool, which may be a pulse."),
    ] = "auto"

    def fits(self, device: str, tag: str) -> bool:
        return _matcher(self.devices)(device) and _matcher(self.tags)(tag)


class Commands(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Commands to the field, whoever asks: API, uplinks, faces, shadow."""

    default: Annotated[Literal["allow", "refuse"], Meta(description="Whether a writable tag that no rule fits may be written.")] = "allow"
    deadline_s: Annotated[
        float, Meta(gt=0, le=86400, description="Time in which a command without a deadline of its own has to be sent, in seconds.")
    ] = 10.0
    longest_deadline_s: Annotated[float, Meta(gt=0, le=30 * 86400, description="A deadline further ahead is refused, in seconds.")] = (
        86400.0
    )
    stale_after_s: Annotated[float, Meta(gt=0, le=3600, description="A command of an uplink that is older is refused, in seconds.")] = 30.0
    ahead_s: Annotated[
        float, Meta(ge=0, le=3600, description="A command of an uplink whose stamp lies further in the future is refused, in seconds.")
    ] = 5.0
    clock: Annotated[
        Literal["synchronised", "set"],
        Meta(
            description="The gateway's clock without which uplinks' commands are refused: synchronised (NTP, PTP), or set at all, where a "
            "plant has no time server."
        ),
    ] = "synchronised"
    rules: Annotated[tuple[CommandRule, ...], Meta(max_length=1000, description="The first that fits a device and a tag holds.")] = ()

    def rule(self, device: str, tag: str) -> CommandRule | None:
        """What holds for a tag; None where it may not be written."""
        found = next((rule for rule in self.rules if rule.fits(device, tag)), None)
        return found or (_ANYTHING if self.default == "allow" else None)


_ANYTHING = CommandRule()


@lru_cache(maxsize=4096)
def _matcher(patterns: tuple[str, ...]) -> _Matches:
    return _Matches(re.compile("|".join(translate(pattern) for pattern in patterns)))


class _Matches:
    """Whether a name fits one of some patterns."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def __call__(self, name: str) -> bool:
        return self._pattern.fullmatch(name) is not None


OF_THE_GATEWAY = frozenset({"api", "shadow", "rule", "local"})


def problems(commands: Commands, devices: Sequence[Device], named: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the section, given all devices of the site and the names of its uplinks and faces. Paths are relative to it."""
    for name in sorted(OF_THE_GATEWAY & set(named)) if commands.rules else ():
        yield Problem("rules", f"{name} is the name of an uplink or face, and what rules call the gateway's own", "give it another name")
    for at, rule in enumerate(commands.rules):
        path = f"rules[{at}]"
        if rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
            yield Problem(f"{path}.minimum", f"{rule.minimum:g} is above maximum, {rule.maximum:g}", "exchange the two")
        unknown = [source for source in rule.sources or () if source not in OF_THE_GATEWAY and source not in named]
        if unknown:
            known = ", ".join(sorted({*OF_THE_GATEWAY, *named}))
            yield Problem(f"{path}.sources", f"nobody is called {unknown[0]!r}", f"there is: {known}", "warning")
        yield from _fitting(path, rule, commands.rules[:at], devices)


def _fitting(path: str, rule: CommandRule, before: Sequence[CommandRule], devices: Sequence[Device]) -> Iterator[Problem]:
    found = [(device.name, tag) for device in devices for tag in device.tags if rule.fits(device.name, tag.name)]
    if not found:
        yield Problem(f"{path}.tags", "no tag of any device fits this rule", "compare devices and tags with their names", "warning")
    elif not any(tag.writable for _, tag in found):
        yield Problem(
            f"{path}.tags", "no tag that fits this rule is writable", "set writable on the tags that commands may write", "warning"
        )
    elif all(any(earlier.fits(device, tag.name) for earlier in before) for device, tag in found):
        yield Problem(path, "rules before it fit all of its tags: it never holds", "put it before them", "warning")
