"""Topics and filters (MQTT 5.0, 4.7): what is one, what matches, and a table from topics to whoever wants them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from protocols.mqtt.config import DEVICE

LONGEST: Final = 1024
REMEMBERED: Final = 20_000
"""Topics whose matches are remembered; somebody who invents topics makes us forget, not grow."""

T = TypeVar("T")


def filled(text: str, device: str, tag: str = "") -> str:
    """``text`` with {device} and {tag} filled in."""
    return text.replace(DEVICE, device).replace("{tag}", tag)


def topic_trouble(text: str) -> str:
    """Why nobody could publish to ``text``; empty where it is a topic."""
    if "+" in text or "#" in text:
        return "a topic to publish to has neither + nor #"
    return _trouble(text)


def filter_trouble(text: str) -> str:
    """Why nobody could subscribe to ``text``; empty where it is a filter."""
    levels = text.split("/")
    for at, level in enumerate(levels):
        if "#" in level and (level != "#" or at != len(levels) - 1):
            return "# stands alone, as the last level"
        if "+" in level and level != "+":
            return "+ stands alone in its level"
    return _trouble(text)


def _trouble(text: str) -> str:
    if not text:
        return "it is empty"
    if len(text.encode("utf-8", "replace")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if any(ord(each) < 32 or ord(each) == 127 or 0xD800 <= ord(each) < 0xE000 for each in text):
        return "it holds a character that no topic may hold"
    if "{" in text or "}" in text:
        return "only {device} is filled in"
    return ""


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message on ``topic`` is one of ``topic_filter`` (4.7.1, 4.7.2)."""
    wanted, there = topic_filter.split("/"), topic.split("/")
    if there[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(there) or level not in ("+", there[at]):
            return False
    return len(wanted) == len(there)


class Table(Generic[T]):
    """Who wants the messages of which filters."""

    def __init__(self, wants: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, list[T]] = {}
        self._broad: list[tuple[str, T]] = []
        for text, want in wants:
            if "+" in text or "#" in text:
                self._broad.append((text, want))
            else:
                self._exact.setdefault(text, []).append(want)
        self._found: dict[str, tuple[T, ...]] = {}

    def of(self, topic: str) -> tuple[T, ...]:
        """Everybody who wants the messages of ``topic``."""
        found = self._found.get(topic)
        if found is None:
            broad = [want for text, want in self._broad if matches(text, topic)]
            found = (*self._exact.get(topic, ()), *broad)
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            self._found[topic] = found
        return found
