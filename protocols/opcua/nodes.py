"""Node ids, and what users write in ``at``: a node by its namespace's URI, and the way into its value.

``nsu=http://example.com/plant;s=Boiler`` names the namespace by its URI, because its index is the server's to choose and may
be another after the next restart (OPC 10000-6, 5.3.1.11). `` > `` goes into the value: a field of a structure by its name, an
element of an array by ``[3]``; a last step that ends in ``()`` is a method of the object. Pure.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import Final, NamedTuple

Identifier = int | str | uuid.UUID | bytes

STEP: Final = " > "
MAX_STEPS: Final = 16
MAX_ELEMENT: Final = 2**24
_ELEMENT: Final = re.compile(r"\[([0-9]{1,8})\]")
_LETTER: Final = {int: "i", str: "s", uuid.UUID: "g", bytes: "b"}


class Impossible(ValueError):
    """The text names no node. ``advice`` says what to write."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


class NodeId(NamedTuple):
    """A node as a server has it: index of its namespace, and identifier."""

    namespace: int
    identifier: Identifier

    def __str__(self) -> str:
        text = said_identifier(self.identifier)
        return f"ns={self.namespace};{text}" if self.namespace else text


class Node(NamedTuple):
    """A node as users write it. ``uri`` None: the index as it stands, ``ns=2``; namespace 0 is always the same."""

    uri: str | None
    namespace: int
    identifier: Identifier

    def __str__(self) -> str:
        if self.uri is None:
            return str(NodeId(self.namespace, self.identifier))
        escaped = self.uri.replace("%", "%25").replace(";", "%3B")
        return f"nsu={escaped};{said_identifier(self.identifier)}"

    def on(self, namespaces: list[str]) -> NodeId | None:
        """The node on a server whose namespace array is ``namespaces``; None where it has no such namespace."""
        if self.uri is None:
            return NodeId(self.namespace, self.identifier)
        return NodeId(namespaces.index(self.uri), self.identifier) if self.uri in namespaces else None


def named(node: NodeId, namespaces: list[str]) -> Node:
    """A server's node as users write it: by the URI of its namespace."""
    uri = namespaces[node.namespace] if 0 < node.namespace < len(namespaces) else None
    return Node(uri, node.namespace, node.identifier)


class Place(NamedTuple):
    """Where a tag's value lies: a node, the steps into its value, or a method of it."""

    node: Node
    steps: tuple[str | int, ...] = ()
    method: str = ""

    def __str__(self) -> str:
        parts = [f"[{step}]" if isinstance(step, int) else step for step in self.steps]
        return STEP.join([str(self.node), *parts, *([f"{self.method}()"] if self.method else [])])


def said_identifier(identifier: Identifier) -> str:
    text = base64.b64encode(identifier).decode() if isinstance(identifier, bytes) else str(identifier)
    return f"{_LETTER[type(identifier)]}={text}"


def parse_node(text: str) -> Node:
    """``nsu=URI;s=...``, ``ns=2;i=...`` or ``i=...``. Raises Impossible."""
    uri: str | None = None
    index = 0
    rest = text
    if text.startswith("nsu="):
        escaped, _, rest = text[4:].partition(";")
        uri = re.sub("%3B", ";", escaped, flags=re.IGNORECASE).replace("%25", "%")
        if not uri:
            raise Impossible(f"{text!r} has no namespace URI", "write nsu=http://...;s=..., as holdfast browse shows it")
    elif text.startswith("ns="):
        number, _, rest = text[3:].partition(";")
        if not (number.isascii() and number.isdigit() and int(number) < 65536):
            raise Impossible(f"{text!r}: {number!r} is no namespace index", "write a number from 0 to 65535, or better nsu=URI")
        index = int(number)
    return Node(uri, index, _identifier(rest, text))


def parse(text: str) -> Place:
    """What ``at`` says. Raises Impossible."""
    first, *parts = (part.strip(" ") for part in text.split(STEP))
    if len(parts) > MAX_STEPS:
        raise Impossible(f"{text!r} goes {len(parts)} steps into a value", f"at most {MAX_STEPS} are possible")
    node = parse_node(first)
    method = ""
    if parts and parts[-1].endswith("()"):
        method = parts.pop()[:-2].rstrip(" ")
        if parts or not method:
            raise Impossible(f"{text!r} names no method of an object", f"write OBJECT{STEP}METHOD()")
    return Place(node, tuple(_step(part, text) for part in parts), method)


def _step(part: str, text: str) -> str | int:
    if match := _ELEMENT.fullmatch(part):
        number = int(match[1])
        if number < MAX_ELEMENT:
            return number
    if not part or part.startswith("["):
        raise Impossible(f"{text!r}: {part!r} is no step into a value", f"after {STEP.strip()} write a field's name, or [3] for an element")
    return part


def _identifier(text: str, whole: str) -> Identifier:
    advice = "write i=NUMBER, s=TEXT, g=GUID or b=BASE64, after nsu=URI; as holdfast browse shows it"
    letter, value = text[:2], text[2:]
    if letter == "i=" and value.isascii() and value.isdigit() and int(value) < 2**32:
        return int(value)
    if letter == "s=" and value:
        return value
    if letter == "g=":
        try:
            return uuid.UUID(value)
        except ValueError:
            raise Impossible(f"{whole!r}: {value!r} is no GUID", advice) from None
    if letter == "b=":
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:  # binascii.Error, and letters that are not ASCII
            raise Impossible(f"{whole!r}: {value!r} is no base64", advice) from None
    raise Impossible(f"{whole!r} is no node id", advice)
