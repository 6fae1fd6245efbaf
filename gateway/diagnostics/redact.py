"""What leaves the gateway for support is walked value by value, and what could be a secret does not come along. Pure.

Three walls, each of which would mostly do alone: what stands under a key that names a secret is hidden whatever it is; what looks like
a credential (a token of ours, a JWT, a PEM block, userinfo in a URL, ``password=`` in a text) is hidden wherever it stands; and what
the site document's secret references lead to at this moment is hidden by its very letters. Where a secret lies (a reference) is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import msgspec

from protocols.secret import FromCredential, FromEnv, FromFile, Secret, SecretMissing

HIDDEN: Final = "(hidden)"
LONGEST_TEXT: Final = 16 * 1024
"""No expression below looks at a letter more than some thousand times: a text that was made to hold them up does not."""
MOST_ITEMS: Final = 500_000
DEEPEST: Final = 40
LEAST_KNOWN: Final = 4
"""A known secret of fewer letters would hide half of all texts; it is hidden by its key."""

_KEY: Final = re.compile(
    r"(?i)pass(word|phrase|wd)?$|password|passphrase|secret|token|credential|authori[sz]ation|cookie|session_?id|bearer"
    r"|(api|access|shared|private|psk|master|pre_?shared)[._-]?key|^psk$|^key$|^pin$|^code$|salt|nonce|signature|digest_auth|^(headers|query|body|form)$"
)
_LOOKS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\bhf[a-z]_[A-Za-z0-9_-]{10,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"(?<=://)[^/@\s?#]*@"), f"{HIDDEN}@"),
    (re.compile(r"(://[^\s?\"']{0,2000}\?)[^\s\"']+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic|digest)\s+[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)((?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|cookie|session|credential|psk)[\w.-]{0,64}[\"']?\s{0,4}[=:]\s{0,4})"
            r"([\"'][^\"']*[\"']|[^\s&;,\"'(][^\s&;,]*)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\$argon2(id|i|d)\$\S+"), HIDDEN),
)

Json = Any  # what msgspec writes


class Redactor:
    """Hides. ``known`` are secrets as they are now."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        parts = {part.strip() for one in known for part in (one, *one.splitlines())}
        letters = sorted((part for part in parts if len(part) >= LEAST_KNOWN), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, letters))) if letters else None
        self._items = 0

    def text(self, text: str) -> str:
        """``text`` without what is known or looks like a secret, cut where it is too long."""
        text = text[:LONGEST_TEXT] + ("..." if len(text) > LONGEST_TEXT else "")
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for looks, instead in _LOOKS:
            text = looks.sub(instead, text)
        return text

    def lines(self, text: str) -> str:
        """The same for a text of many lines, each for itself."""
        return "\n".join(self.text(line) for line in text.split("\n"))

    def value(self, value: Any, key: str = "", depth: int = 0) -> Json:  # Any: Structs and JSON
        """``value`` as JSON, hidden where it must be. What is not known to be harmless is told by its type alone."""
        self._items += 1
        if self._items > MOST_ITEMS or depth > DEEPEST:
            return "(left out)"
        if isinstance(value, FromFile | FromEnv | FromCredential):
            return msgspec.to_builtins(value)
        if _KEY.search(key) and not isinstance(value, bool | None):
            return HIDDEN if value not in ("", [], {}, ()) else ""
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, msgspec.Struct):
            return self._mapping(_fields(value), depth)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(each, key, depth + 1) for each in value]
        return self._scalar(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Json:  # Any: JSON
        return {self.text(str(key)): self.value(each, str(key), depth + 1) for key, each in value.items()}

    def _scalar(self, value: Any) -> Json:  # Any: whatever is left
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if value is None or isinstance(value, bool | int):
            return value
        return f"({type(value).__name__})"


def _fields(struct: msgspec.Struct) -> dict[str, Any]:  # Any: fields of any kind
    """What stands at its default is left out: a site of 10,000 tags stays readable."""
    config = struct.__struct_config__
    told = {str(config.tag_field): config.tag} if config.tag_field else {}
    for name, called, default in _layout(type(struct)):
        value = getattr(struct, name)
        if default is msgspec.NODEFAULT or value != default:
            told[called] = value
    return told


@lru_cache(maxsize=1024)
def _layout(form: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:  # Any: defaults of any kind
    """Names, names in documents and defaults; to find them out takes a hundred times as long as to use them."""
    return tuple((field.name, field.encode_name, field.default) for field in msgspec.structs.fields(form))


def secrets_in(value: Any) -> list[str]:  # Any: Structs and JSON
    """What the references in ``value`` lead to now. Reads files: not for the loop. A secret that is missing is none."""
    return [text for reference in _references(value) if (text := _read(reference))]


def _references(value: Any) -> Iterable[Secret]:  # Any: as above
    if isinstance(value, FromFile | FromEnv | FromCredential):
        yield value
    elif isinstance(value, msgspec.Struct):
        yield from _references(_fields(value))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _references(each)


def _read(reference: Secret) -> str:
    try:
        return reference.read()
    except SecretMissing:
        return ""
