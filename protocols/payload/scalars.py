"""A value that stands as text, as what its kind takes: for text, csv, xml, and devices that quote their numbers."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from protocols.model import Kind

LONGEST_NUMBER: Final = 400
"""Characters of a number; a float64 written out in full has fewer."""
TRUTHS: Final[dict[str, bool]] = {
    **dict.fromkeys(("true", "1", "on", "yes", "open", "active"), True),
    **dict.fromkeys(("false", "0", "off", "no", "closed", "inactive"), False),
}


def from_text(text: str, kind: Kind) -> Any:  # Any: what values.value_of judges; None where the text is nothing of this kind
    """What ``text`` says, as ``kind`` wants it. Numbers have a point and no thousands marks; bytes are base64."""
    if kind is Kind.STRING:
        return text
    text = text.strip()
    if kind is Kind.BOOL:
        return TRUTHS.get(text.lower())
    if kind is Kind.BYTES:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
    if not text or len(text) > LONGEST_NUMBER or "_" in text:
        return None
    try:
        return int(text) if kind not in (Kind.FLOAT32, Kind.FLOAT64) else float(text)
    except ValueError:
        pass
    try:
        return float(text)  # 21.0 for a whole number
    except ValueError:
        return None
