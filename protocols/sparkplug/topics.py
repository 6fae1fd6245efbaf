"""Topics of Sparkplug B 3.0 (chapter 4): built from names that were checked, parsed with limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NAMESPACE: Final = "spBv1.0"
MAX_TOPIC_BYTES: Final = 65_535
"""MQTT 5.0, 1.5.4: a topic is a string with a two-byte length."""
MAX_ID_LENGTH: Final = 512
"""Three ids of so many characters stay far below MAX_TOPIC_BYTES in UTF-8."""
_FORBIDDEN: Final = "/+#\x00"


class BadName(ValueError):
    """A name cannot be part of a topic. The text says which and why."""


class Verb(StrEnum):
    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"

    @property
    def of_device(self) -> bool:
        return self.startswith("D")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic of the namespace says. ``device`` is empty for the verbs of an edge node."""

    group: str
    verb: Verb
    node: str
    device: str = ""


def checked(name: str, what: str) -> str:
    """``name`` itself. Raises BadName where it cannot be an id of ``what`` (4.1.2 to 4.1.5)."""
    bad = [character for character in _FORBIDDEN if character in name]
    if not name or bad or len(name) > MAX_ID_LENGTH:
        why = f"contains {bad[0]!r}" if bad else "is empty" if not name else f"is longer than {MAX_ID_LENGTH} characters"
        raise BadName(f"{what} {name[:80]!r} {why}: give it a name of 1 to {MAX_ID_LENGTH} characters without / + #")
    return name


def topic(group: str, verb: Verb, node: str, device: str = "") -> str:
    """The topic of one message. Raises BadName."""
    parts = [NAMESPACE, checked(group, "group"), verb, checked(node, "edge node")]
    if verb.of_device:
        parts.append(checked(device, "device"))
    return "/".join(parts)


def parse(text: str) -> Topic | None:
    """What ``text`` says, or None where it is no topic of group, verb and node."""
    if len(text) > MAX_TOPIC_BYTES:
        return None
    parts = text.split("/", 5)
    if len(parts) not in (4, 5) or parts[0] != NAMESPACE or parts[2] not in Verb.__members__:
        return None
    verb = Verb(parts[2])
    if verb.of_device != (len(parts) == 5) or not all(parts):
        return None
    return Topic(parts[1], verb, parts[3], parts[4] if verb.of_device else "")


def state_topic(host: str) -> str:
    """Where a host application says whether it is online (4.1.10). Raises BadName."""
    return f"{NAMESPACE}/STATE/{checked(host, 'primary host')}"


def command_filters(group: str, node: str) -> tuple[str, str]:
    """The two subscriptions of an edge node: its own commands and those of its devices (5.4)."""
    return topic(group, Verb.NCMD, node), f"{NAMESPACE}/{group}/{Verb.DCMD}/{node}/#"
