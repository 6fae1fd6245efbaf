"""Moments as people and machines write them: nanoseconds since 1970, or RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.objections import Unfit

_DIGITS: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_RFC_3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str, name: str) -> int:
    """Nanoseconds UTC since 1970. Raises Unfit; ``name`` says what was asked for."""
    if _DIGITS.fullmatch(text):
        return int(text)
    match = _RFC_3339.fullmatch(text)
    if match is not None:
        day, clock, fraction, zone = match.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}") - _EPOCH
        except (ValueError, OverflowError):
            pass
        else:
            return whole // timedelta(microseconds=1) * 1000 + int((fraction or "").ljust(9, "0"))
    raise Unfit(f"{name} is no moment: {text!r}", "write nanoseconds since 1970, or 2026-11-21T06:00:00Z (RFC 3339, with its zone)")


def rfc_3339(time_ns: int) -> str:
    """UTC, with all nine digits. What lies outside the years that it knows is written as a number."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        whole = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return str(time_ns)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
