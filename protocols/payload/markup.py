"""XML without entities, DTDs or anything fetched, and a small part of XPath that cannot search for long.

A path goes down from the root: ``/meter/reading[@unit='kWh'][2]/value`` is the text of an element, ``/meter/@serial`` an attribute.
Namespaces are left aside: names are local names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree  # type: ignore[import-untyped]  # has no types
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]  # as above

from protocols.payload.trouble import BadPlace, Undecodable

MAX_TAGS: Final = 20_000
"""An element takes four bytes on the wire and two hundred in memory."""
MAX_DEPTH: Final = 64
MAX_ATTRIBUTES: Final = 50_000
_STEP: Final = re.compile(r"([\w.\-]+|\*)((?:\[[^\[\]]*\])*)")
_CONDITION: Final = re.compile(r"\[(?:([1-9]\d{0,5})|(@?)([\w.\-]+)=(?:'([^']*)'|\"([^\"]*)\"))\]")
_ADVICE: Final = "write /meter/energy, /meter/@serial, /meter/phase[2] or /meter/phase[@id='a']/volts"


@dataclass(frozen=True, slots=True)
class _Condition:
    number: int
    attribute: bool
    name: str
    text: str

    def chosen(self, elements: list[Element]) -> list[Element]:
        if self.number:
            return elements[self.number - 1 : self.number]
        if self.attribute:
            return [each for each in elements if _attribute(each, self.name) == self.text]
        return [each for each in elements if any(_local(child.tag) == self.name and _text(child) == self.text for child in each)]


@dataclass(frozen=True, slots=True)
class Path:
    steps: tuple[tuple[str, tuple[_Condition, ...]], ...]
    attribute: str

    def of(self, root: Element) -> str | None:
        """The text; None where there is nothing. Raises Undecodable where there are several."""
        found = self._chosen([root], *self.steps[0])
        for name, conditions in self.steps[1:]:
            found = [each for parent in found for each in self._chosen(list(parent), name, conditions)]
        if len(found) > 1:
            raise Undecodable("a path finds more than one element")
        if not found:
            return None
        return _attribute(found[0], self.attribute) if self.attribute else _text(found[0])

    @staticmethod
    def _chosen(elements: list[Element], name: str, conditions: tuple[_Condition, ...]) -> list[Element]:
        found = [each for each in elements if name == "*" or _local(each.tag) == name]
        for condition in conditions:
            found = condition.chosen(found)
        return found


def compile_xml_path(text: str) -> Path:
    """Raises BadPlace."""
    if not text.startswith("/") or text.startswith("//"):
        raise BadPlace(f"{text!r} does not begin at the root", _ADVICE)
    *names, last = _split(text[1:])
    attribute = last[1:] if last.startswith("@") else ""
    if not attribute:
        names.append(last)
    if not names or last == "@" or len(names) > MAX_DEPTH or (attribute and not re.fullmatch(r"[\w.\-]+", attribute)):
        raise BadPlace(f"{text!r} is no path", _ADVICE)
    return Path(tuple(_step(name, text) for name in names), attribute)


def _split(text: str) -> list[str]:
    """Parts between slashes that stand in no brackets."""
    return re.split(r"/(?![^\[]*\])", text)


def _step(part: str, text: str) -> tuple[str, tuple[_Condition, ...]]:
    found = _STEP.fullmatch(part)
    if found is None:
        raise BadPlace(f"{text!r} has the part {part!r}, which is not taken", _ADVICE)
    conditions = []
    for written in re.findall(r"\[[^\[\]]*\]", found[2]):
        read = _CONDITION.fullmatch(written)
        if read is None:
            raise BadPlace(f"{text!r} has the condition {written}, which is not taken", _ADVICE)
        conditions.append(_Condition(int(read[1] or 0), bool(read[2]), read[3] or "", read[4] if read[4] is not None else read[5] or ""))
    return found[1], tuple(conditions)


def read_xml(payload: bytes) -> Element:
    """The root. Raises Undecodable: for DTDs and entities too (N12)."""
    if payload.count(b"<") > MAX_TAGS or payload.count(b"=") > MAX_ATTRIBUTES:
        raise Undecodable(f"the payload has more than {MAX_TAGS} tags")
    try:
        root = defusedxml.ElementTree.fromstring(payload, forbid_dtd=True)
    except DefusedXmlException as error:
        raise Undecodable(f"the payload has a DTD or entities, which are not read ({type(error).__name__})") from None
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise Undecodable(f"the payload is no XML ({str(error)[:200]})") from None
    assert isinstance(root, Element)
    return root


def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _attribute(element: Element, name: str) -> str | None:
    found = element.get(name)
    return found if found is not None else next((value for key, value in element.items() if _local(key) == name), None)


def _text(element: Element) -> str:
    return (element.text or "").strip()
