"""The sound parts of a wrong document, so that they can be judged too and all problems come at once.

What holds a problem is left out: a tag as a whole, of a device, a connection or an uplink first only the key. What cannot be
read even so is left out as a whole. So nearly everything is judged as it is written, and an error that is found in it is
one; whoever asks leaves warnings for later, because a key that was left out may have explained them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from gateway.config.document import Path, Plain, show, steps

STANDS_FOR: Final[dict[str, Plain]] = {"holdfast": 1, "gateway": {"group": "unknown", "name": "unknown"}}
"""What a site cannot do without, where the document's own is wrong."""
WHOLE_FROM: Final = 3
"""Entries of lists so deep (tags of devices of connections) are left out as a whole: half of one means something else."""

_NAMED: Final = re.compile(r"\b[a-z_]+\[\d+\](?:\.[a-z_]+|\[\d+\])*")


class Sound:
    """The sound parts of a document, and where they stood."""

    def __init__(self, value: Plain, wrong: Iterable[Path], whole: Iterable[Path] = ()) -> None:
        """``wrong``: places of problems; ``whole``: places whose entries are left out as a whole."""
        self._left_out = {_key_or_entry(path) for path in wrong} | {entry_around(path) for path in whole}
        self._places: dict[Path, list[int]] = {}
        self.value: Plain = {**STANDS_FOR, **self._copy(value, (), ())} if isinstance(value, dict) else None

    def place(self, path: Path) -> Path:
        """Where in the document what is now at ``path`` stood."""
        return tuple(self._steps(path))

    def text(self, text: str, path: Path) -> str:
        """``text`` of a problem at ``path`` (as it is now), with the places that it names as they stood."""

        def stood(found: re.Match[str]) -> str:
            named = steps(found[0])
            outer = path[: path.index(named[0])] if named[0] in path else ()
            return show(self.place((*outer, *named))[len(outer) :])

        return _NAMED.sub(stood, text) if self._places else text

    def lost_a_key(self, section: str) -> bool:
        """Whether an entry of ``section`` is there without something that stands in the document."""
        return any(path[0] == section and isinstance(path[-1], str) for path in self._left_out)

    def _steps(self, path: Path) -> Iterator[str | int]:
        for number, step in enumerate(path):
            places = self._places.get(path[:number])
            yield places[step] if places is not None and isinstance(step, int) and step < len(places) else step

    def _copy(self, value: Plain, stood: Path, stands: Path) -> Plain:
        if isinstance(value, dict):
            kept_keys = [key for key in value if (*stood, key) not in self._left_out]
            return {key: self._copy(value[key], (*stood, key), (*stands, key)) for key in kept_keys}
        if isinstance(value, list):
            kept = [at for at in range(len(value)) if (*stood, at) not in self._left_out]
            if len(kept) < len(value):
                self._places[stands] = kept
            return [self._copy(value[at], (*stood, at), (*stands, now)) for now, at in enumerate(kept)]
        return value


def entry_around(path: Path) -> Path:
    """The innermost list entry that ``path`` is in, or its section of the site."""
    last = max((number for number, step in enumerate(path) if isinstance(step, int)), default=0)
    return path[: last + 1]


def _key_or_entry(path: Path) -> Path:
    entry = entry_around(path)
    lists = sum(isinstance(step, int) for step in path)
    return entry if not 0 < lists < WHOLE_FROM else path[: len(entry) + 1]
