"""What a device says it has: CoRE link format (RFC 6690, 2), read within bounds. Pure.

``</sensors/t1>;rt="temperature";ct=0;obs,</leds>`` gives two links. What cannot be read ends the reading: what came before counts.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_LINKS: Final = 2000
MAX_BYTES: Final = 256 * 1024
MAX_ATTRIBUTES: Final = 32

_TARGET: Final = re.compile(r"\s*<([^<>\x00-\x1f]{0,1024})>")
_ATTRIBUTE: Final = re.compile(r'\s*;\s*([A-Za-z0-9!#$&+.^_`|~*-]{1,64})(?:\s*=\s*(?:"((?:[^"\\]|\\.){0,1024})"|([^\s",;<>]{0,1024})))?')
_NEXT: Final = re.compile(r"\s*,")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that a device offers."""

    path: str
    attributes: dict[str, str] = {}

    @property
    def formats(self) -> tuple[int, ...]:
        """``ct``: the content formats it comes in (RFC 7252, 7.2.1)."""
        return tuple(int(word) for word in self.attributes.get("ct", "").split() if word.isdecimal() and len(word) <= 5)

    @property
    def is_observable(self) -> bool:
        return "obs" in self.attributes


def links_of(payload: bytes) -> list[Link]:
    """The links of a body, in its order; of an attribute that stands twice the first counts (2.1). Absolute URIs are left out."""
    text = payload[:MAX_BYTES].decode("utf-8", "replace")
    found: list[Link] = []
    at = 0
    while len(found) < MAX_LINKS and (target := _TARGET.match(text, at)):
        at = target.end()
        attributes: dict[str, str] = {}
        for _ in range(MAX_ATTRIBUTES):
            part = _ATTRIBUTE.match(text, at)
            if part is None:
                break
            at = part.end()
            name, quoted, word = part.groups()
            attributes.setdefault(name, re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else word or "")
        if target[1].startswith("/"):
            found.append(Link(path=target[1], attributes=attributes))
        comma = _NEXT.match(text, at)
        if comma is None:
            break
        at = comma.end()
    return found
