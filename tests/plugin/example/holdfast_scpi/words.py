"""SCPI answers to values and values to SCPI parameters. Pure.

Sources: SCPI-1999, 7.2 (numbers that stand for "not a number" and infinity), 21.8 (SYSTem:ERRor?); IEEE 488.2, 8.7 (response data).
"""

from __future__ import annotations

import math
import re
from typing import Final

from protocols.model import Kind
from protocols.values import Unwritable, Value

NOT_A_NUMBER: Final = 9.91e37
INFINITY: Final = 9.9e37
LONGEST_NUMBER: Final = 40
"""Characters; no instrument writes more, and Python needs ever longer for a whole number of ever more digits."""
ERROR: Final = re.compile(r'([+-]?\d{1,6}),"([^"]{0,300})"')


def raw_value(answer: str, kind: Kind) -> bool | int | float | str | None:
    """What ``answer`` says, for a tag of ``kind``; None where it says nothing of that kind."""
    if kind is Kind.STRING:
        quoted = len(answer) >= 2 and answer[0] == answer[-1] == '"'
        return answer[1:-1].replace('""', '"') if quoted else answer
    if kind is Kind.BOOL:
        return {"0": False, "1": True, "OFF": False, "ON": True}.get(answer.upper())
    if len(answer) > LONGEST_NUMBER:
        return None
    try:
        return int(answer) if re.fullmatch(r"[+-]?\d+", answer) else special(float(answer))
    except ValueError:
        return None


def special(number: float) -> float:
    """The numbers with which SCPI says that it has none."""
    if number == NOT_A_NUMBER:
        return math.nan
    return math.copysign(math.inf, number) if abs(number) == INFINITY else number


def parameter(raw: Value) -> str:
    """``raw`` as a command says it. Raises Unwritable."""
    if isinstance(raw, bool):
        return str(int(raw))
    if isinstance(raw, str):
        if not (raw.isascii() and raw.isprintable()):
            raise Unwritable("SCPI takes printable ASCII alone")
        return '"' + raw.replace('"', '""') + '"'
    return repr(raw)


def error_of(answer: str) -> tuple[int, str] | None:
    """The number and text of an answer to SYSTem:ERRor?; None if it is no such answer."""
    found = ERROR.fullmatch(answer)
    return (int(found[1]), found[2]) if found else None
