"""A SunSpec device's registers, laid out by pysunspec2: not by what is tested."""

from __future__ import annotations

from typing import Any, Final

import sunspec2.device as sunspec  # type: ignore[import-untyped]  # the package has no types

END: Final = (0xFFFF, 0)


def suns_map(base: int, contents: dict[int, dict[str, Any]]) -> dict[int, int]:  # Any: numbers, text, lists of repeating groups
    """Registers by address: "SunS", each model with its points (what is not given is not implemented), the end."""
    words = [0x5375, 0x6E53]
    for number, values in contents.items():
        model = sunspec.Model(number, data=_filled(number, values))
        raw = model.get_mb()
        words += [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
    return dict(enumerate([*words, *END], start=base))


def _filled(number: int, values: dict[str, Any]) -> dict[str, Any]:
    return {"ID": number, **values}
