"""Which of two releases is the newer one. Pure."""

from __future__ import annotations


def number_of(release: str) -> tuple[int, ...]:
    """``0.10.2`` as numbers that can be compared; what follows a plus sign, and what is no number, says nothing."""
    return tuple(int(part) for part in release.partition("+")[0].split(".") if part.isdecimal())
