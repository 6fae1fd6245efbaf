"""Valid frames that real peers wrote, as text that a person can read: a name and hex digits in each line of ``corpus/``.

``python -m tests.fuzz.record`` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"


def load(name: str) -> dict[str, bytes]:
    """The frames of one peer, by name."""
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return {word: bytes.fromhex(digits) for word, _, digits in (line.partition(" ") for line in lines if line and line[0] != "#")}


def frames(*names: str) -> list[bytes]:
    return [frame for name in names for frame in load(name).values()]


def save(name: str, origin: str, found: Mapping[str, bytes]) -> None:
    lines: Iterable[str] = (f"{word} {frame.hex()}" for word, frame in found.items())
    (FOLDER / f"{name}.hex").write_text("\n".join([f"# {origin}", *lines, ""]))
