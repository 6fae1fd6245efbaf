"""What a command may not do, whatever the field says: allow-list, role, range, rate of change, pace. Pure.

Each check gives the reason why not, in words for whoever asked, or nothing. The driver checks the tag's own limits again when it
builds the request; what is said here is said before anything is queued.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from gateway.commands.origin import Origin
from gateway.config.commands import CommandRule, Commands
from gateway.identity.principal import Role
from protocols.model import Command, Device, Kind, Tag

LONGEST_ID: Final = 256
GREATEST: Final = 2**64
_TEXT: Final[dict[Kind, tuple[type, str]]] = {Kind.STRING: (str, "text"), Kind.BYTES: (bytes, "bytes")}


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a tag when a command for it comes."""

    value: float | None
    """What was read last, if it is a good number."""
    sent_ns: int
    """When a command to it was sent last; 0: never."""


def misfit(command: Command, device: Device) -> str:
    """Why ``command`` cannot be for ``device``; empty if it can."""
    if not command.id or len(command.id) > LONGEST_ID or not command.id.isprintable():
        return f"a command's id has 1 to {LONGEST_ID} printable characters"
    tag = tag_of(device, command.tag)
    if tag is None:
        return f"device {command.device} has no tag {command.tag[:LONGEST_ID]}"
    if not tag.writable:
        return f"tag {command.tag} of {command.device} is not writable: set writable in the site document"
    return _wrong_kind(command.value, tag)


def tag_of(device: Device, name: str) -> Tag | None:
    return next((tag for tag in device.tags if tag.name == name), None)


def _wrong_kind(value: bool | int | float | str | bytes, tag: Tag) -> str:
    if tag.kind in _TEXT:
        wanted, called = _TEXT[tag.kind]
        return "" if isinstance(value, wanted) else f"tag {tag.name} is a {tag.kind}: write {called}"
    if isinstance(value, str | bytes):
        return f"tag {tag.name} is a {tag.kind}: write {'true or false' if tag.kind is Kind.BOOL else 'a number'}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"tag {tag.name}: NaN and infinity are not written"
    if isinstance(value, int) and abs(value) > GREATEST:
        return f"tag {tag.name}: the number is out of range for every kind"
    return ""


def objection(commands: Commands, command: Command, origin: Origin, reason: str, past: Past, now_ns: int) -> str:
    """Why the site's rules refuse ``command``; empty if they do not. The value fits the tag's kind."""
    rule = commands.rule(command.device, command.tag)
    if rule is None:
        return f"no rule allows commands to {command.tag} of {command.device}: add one to commands.rules, or set default to allow"
    return _not_for(rule, origin, reason) or _out_of_bounds(rule, command, past, now_ns)


def _not_for(rule: CommandRule, origin: Origin, reason: str) -> str:
    if rule.sources is not None and origin.called not in rule.sources:
        return f"commands of {origin.called} are not allowed for this tag"
    if origin.role is not None and origin.role.rank < Role(rule.least_role).rank:
        return f"this tag needs the role {rule.least_role}, and {origin.who} is {origin.role.value}"
    return "this tag needs a reason: say why" if rule.needs_reason and not reason.strip() else ""


def _out_of_bounds(rule: CommandRule, command: Command, past: Past, now_ns: int) -> str:
    since_s = (now_ns - past.sent_ns) / 1e9 if past.sent_ns else math.inf
    if since_s < rule.least_interval_s:
        return f"the last command to this tag was sent {max(since_s, 0):.3g} s ago: it takes one in {rule.least_interval_s:g} s"
    value = command.value
    if isinstance(value, bool | str | bytes):
        return ""
    low, high = rule.minimum, rule.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        return f"out of range: commands may write {'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
    return _too_fast(rule, value, past, since_s)


def _too_fast(rule: CommandRule, value: float, past: Past, since_s: float) -> str:
    limits = [rule.most_change, rule.most_change_per_s * since_s if rule.most_change_per_s is not None else None]
    most = min((limit for limit in limits if limit is not None), default=None)
    if most is None or most == math.inf:
        return ""
    if past.value is None:
        return "its rate of change is limited, and what it is now is not known: it waits for a good value"
    try:
        change = abs(value - past.value)
    except OverflowError:
        change = math.inf
    return f"a change by {change:g} is too much: {most:g} is allowed now" if change > most else ""


def may_repeat(commands: Commands, command: Command, tag: Tag) -> bool:
    """Whether a command that was sent and not answered may be sent again: it sets what it sets, however often."""
    rule = commands.rule(command.device, command.tag)
    if rule is None or rule.repeat == "never":
        return False
    return rule.repeat == "always" or tag.kind is not Kind.BOOL
