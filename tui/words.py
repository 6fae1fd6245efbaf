"""The words of the line console, as a table: help, completion and the check of what was typed are drawn from it.

A line is split as people quote: ``write press text "two words"``. It is bounded in characters and words before anything reads it.
Nothing here is a word that names a program or a file. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 500
"""Characters of one line."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word: what may follow it, what it does, and the permission that it needs."""

    name: str
    what: str
    usage: str = ""
    needs: str = ""
    least: int = 0
    most: int = 0
    more: str = ""
    names: tuple[str, ...] = ()
    """What stands at each place, for completion: device, tag, connection, or words of its own."""

    @property
    def typed(self) -> str:
        return f"{self.name} {self.usage}".rstrip()


MANY: Final = 100
WORDS: Final = (
    Word("status", "the gateway, its journal, ledger and uplinks", needs="see-status"),
    Word("devices", "all devices, or those whose name holds TEXT", "[TEXT]", "see-status", most=1),
    Word("device", "a device with its tags and their last values", "DEVICE", "see-values", 1, 1, names=("device",)),
    Word("value", "the last value of one tag", "DEVICE TAG", "see-values", 2, 2, names=("device", "tag")),
    Word(
        "watch",
        "values as they change, until Ctrl-C",
        "DEVICE [TAG]",
        "see-values",
        1,
        2,
        "A value is told at most once a second.",
        ("device", "tag"),
    ),
    Word("connections", "the ways to the field, and what troubles them", needs="see-status"),
    Word("repairs", "known faults, the worst first", needs="see-status"),
    Word("repair", "one fault, and its fix to press", "NUMBER", "see-status", 1, 1, "NUMBER is of the list that 'repairs' shows."),
    Word(
        "write",
        "write a tag, after you were asked once",
        "DEVICE TAG VALUE [REASON]",
        "command",
        3,
        MANY,
        "It is a command: read back, and recorded under your name. Text with spaces stands in quotes.",
        ("device", "tag"),
    ),
    Word("commands", "the last commands and what became of them", "[DEVICE]", "see-commands", most=1, names=("device",)),
    Word("lock-outs", "what nobody writes to now, and why", needs="see-status"),
    Word(
        "lock-out",
        "let nobody write while you work there",
        "device NAME WHY, connection NAME WHY, gateway WHY",
        "lock-out",
        2,
        MANY,
        "It holds until it is lifted, over restarts, and for everybody, you included.",
        ("device|connection|gateway", "device"),
    ),
    Word("lift", "end a lock-out", "ID", "lock-out", 1, 1, "ID as 'lock-outs' shows it: device:meter-1."),
    Word("scan", "which unit ids of a connection answer", "CONNECTION", "diagnose", 1, 1, names=("connection",)),
    Word(
        "find",
        "the registers that hold what a display shows",
        "CONNECTION UNIT SHOWN",
        "diagnose",
        3,
        3,
        'SHOWN with its unit if you like: find hall 7 "230.4 V"',
        ("connection",),
    ),
    Word(
        "trace",
        "record what passes on a connection",
        "CONNECTION [SECONDS]",
        "diagnose",
        1,
        2,
        "The file for Wireshark is fetched over the API: GET /api/v1/diagnostics/jobs/JOB/pcapng",
        ("connection",),
    ),
    Word("audit", "what people and machines did last", needs="see-audit"),
    Word("who", "who you are here, and what you may do"),
    Word("help", "all words, or more about one", "[WORD]", most=1, names=("word",)),
    Word("quit", "sign out and leave; so does Ctrl-D"),
)
BY_NAME: Final = {word.name: word for word in WORDS}


class Wrong(Exception):
    """What was typed is no line of the console; it says what to type instead."""


def read(line: str) -> tuple[Word, list[str]] | None:
    """The word of ``line`` and what follows it; None where it is empty. Raises Wrong."""
    if len(line) > LONGEST_LINE:
        raise Wrong(f"a line has {LONGEST_LINE} characters at most: nothing was done")
    try:
        first, *rest = shlex.split(line, comments=False) or [""]
    except ValueError:
        raise Wrong("a quote is open: close it, and nothing was done yet") from None
    if not first:
        return None
    word = BY_NAME.get(first.lower())
    if word is None:
        raise Wrong(f"there is no word {first[:40]!r}: 'help' lists them")
    if not word.least <= len(rest) <= word.most:
        raise Wrong(f"it is: {word.typed}")
    return word, rest


Names = Callable[[str, Sequence[str]], Iterable[str]]
"""The names of a kind, with the words that stand before."""


def completions(line: str, names: Names) -> list[str]:
    """What the last word of ``line`` could become; ``names`` gives what the gateway has. Only what needs no quotes."""
    *before, begun = line.split(" ")
    before = [each for each in before if each]
    if not before:
        found: Iterable[str] = (word.name for word in WORDS)
    else:
        word, at = BY_NAME.get(before[0].lower()), len(before) - 1
        if word is None or at >= len(word.names):
            return []
        found = _of(word.names[at], before[1:], names)
    return sorted({each for each in found if each.startswith(begun) and _bare(each)})


def _of(kind: str, before: Sequence[str], names: Names) -> Iterable[str]:
    if kind == "word":
        return BY_NAME
    if "|" in kind:
        return kind.split("|")
    return names(before[-1] if kind == "device" and before and before[-1] in ("connection", "gateway") else kind, before)


def _bare(name: str) -> bool:
    return name.isprintable() and not set(name) & set("' \"\\")
