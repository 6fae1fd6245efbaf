"""From a template and answers to a device as the driver's options want it. Pure.

What is written in a site wins over the template, key by key; its own tags are added, and one that has the name of a
template's tag changes that. Own tags come first, in their order, so that whatever is said about ``tags[3]`` is said about
the tag that a reader sees there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from protocols.contract import Problem
from protocols.options import error
from protocols.templates.library import matches
from protocols.templates.shape import WRITABLE, Answer, Question, Row, Template, TemplateTag

KEYS: Final = frozenset(("template", "answers", "template_tags"))
"""Keys of a device in a site that are about its template, not for the driver."""
_PLACE: Final = re.compile(r"([a-z]+:)(0[xX][0-9a-fA-F]+|[0-9]+)(.*)")


def make(template: Template, device: Row) -> tuple[Row, list[Problem]]:
    """The device that ``device`` of a site stands for, and what is wrong with its answers; paths are relative to it."""
    problems: list[Problem] = []
    answers = _answers(template, device.get("answers", {}), problems)
    chosen = device.get("template_tags", ["*"])
    if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
        problems.append(error("template_tags", "expected a list of patterns", "write the names of tags, * for any part: [power/*]"))
        chosen = ["*"]
    if problems:
        return {}, problems
    base = {"unit_id": template.connection.unit_id} if template.connection.unit_id is not None else {}
    base |= template.device | {question.sets: answers[key] for key, question in template.questions.items() if question.sets}
    mine = {key: value for key, value in device.items() if key not in KEYS}
    rows = [row for tag in template.tags if (row := _row(tag, template, answers, device.get("scan_s"))) and matches(tag.name, chosen)]
    for pattern in chosen:
        if pattern != "*" and not any(matches(row["name"], [pattern]) for row in rows):
            problems.append(error("template_tags", f"{template.name} has no tag {pattern!r}", "holdfast template show lists its tags"))
    names = [row["name"] for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        problems.append(error("template", f"{template.name} has the tag {twice!r} twice with these answers", "mend the template"))
    own = mine.get("tags", [])
    if not isinstance(own, list):
        return {**base, **mine}, problems
    known = {row["name"]: row for row in rows}
    changed = [{**known.pop(one["name"], {}), **one} if isinstance(one, dict) and isinstance(one.get("name"), str) else one for one in own]
    return {**base, **mine, "tags": [*changed, *known.values()]}, problems


def _row(tag: TemplateTag, template: Template, answers: Mapping[str, Answer], scan_s: Any) -> Row | None:  # Any: as it was written
    if any(str(answers[question]) not in wanted for question, wanted in tag.when.items()):
        return None
    row: Row = {"name": tag.name, **tag.options}
    if row.get("writable") and answers.get(WRITABLE) != "yes":
        for key in ("writable", "minimum", "maximum"):
            row.pop(key, None)
    factor = math.prod(float(answers[question]) for question in tag.times)
    if tag.times and factor != 1.0:
        row["scale"] = _tidy(row.get("scale", 1.0) * factor)
        if row.get("offset"):
            row["offset"] = _tidy(row["offset"] * factor)
    if tag.shift and (place := _PLACE.fullmatch(str(row["at"]))):
        row["at"] = f"{place[1]}{int(place[2], 0) + int(answers[tag.shift])}{place[3]}"
    least = template.groups[tag.group]
    if least and "scan_s" not in row:
        row["scan_s"] = max(least, scan_s) if isinstance(scan_s, int | float) else least
    return row


def _tidy(number: float) -> float:
    """Without the dust of binary fractions: 0.1 * 3 is 0.3."""
    return float(f"{number:.12g}")


def _answers(template: Template, given: Any, problems: list[Problem]) -> dict[str, Answer]:  # Any: as it was written
    if not isinstance(given, dict):
        problems.append(error("answers", "expected the questions with their answers", "write answers: {question: answer}"))
        given = {}
    for key in given:
        if key not in template.questions:
            known = f"it asks {', '.join(template.questions)}" if template.questions else "it asks nothing"
            problems.append(error(f"answers.{key}", f"template {template.name} does not ask {key!r}", known))
    answers: dict[str, Answer] = {}
    for key, question in template.questions.items():
        answers[key] = given.get(key, question.default)
        if reason := wrong(answers[key], question):
            problems.append(error(f"answers.{key}", reason, question.ask))
    return answers


def wrong(answer: Any, question: Question) -> str:  # Any: as it was written
    """Why ``answer`` is none to ``question``; empty if it is one."""
    if question.type == "choice":
        return "" if str(answer) in question.choices else f"{answer!r} is not one of {', '.join(question.choices)}"
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        return f"expected a number, got {answer!r}"
    if question.type == "integer" and answer != int(answer):
        return f"expected a whole number, got {answer!r}"
    low, high = question.minimum, question.maximum
    if (low is not None and answer < low) or (high is not None and answer > high):
        return f"{answer:g} is out of range: {'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
    return ""


def answer_of(text: str, question: Question) -> Answer:
    """``text`` from a command line as an answer to ``question``. What is none is given back, for :func:`make` to refuse."""
    if question.type == "choice":
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if question.type == "integer" and number.is_integer() else number
