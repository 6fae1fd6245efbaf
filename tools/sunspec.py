"""Makes ``protocols/templates/sunspec-models.yaml`` from the SunSpec models in pysunspec2 (Apache-2.0).

``python tools/sunspec.py`` writes it, ``--check`` fails where it differs. Only models whose points lie at places that
the model alone says are taken: a group that repeats to the model's end may stand at its end, nothing else.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

MODELS: Final[Traversable] = files("sunspec2") / "models" / "json"
TARGET: Final = Path(__file__).parents[1] / "protocols/templates/sunspec-models.yaml"
WANTED: Final = (1, 11, 12, *range(101, 104), *range(111, 114), *range(120, 125), 160, *range(201, 205), *range(211, 215),
                 302, 303, 304, 305, 306, 307, 308, 701, 702, 703, 713, 714, 802)  # fmt: skip
HEAD: Final = """\
# SunSpec information models, Copyright SunSpec Alliance, Apache-2.0; made from pysunspec2 by tools/sunspec.py.
# A point: name, offset, type, registers, scale factor, unit, whether it never changes.
"""

Json = dict[str, Any]


def points_of(points: list[Json], start: int) -> tuple[list[list[Any]], int]:
    """The points as rows, and where the next thing begins."""
    rows = []
    for point in points:
        size = int(point["size"])
        if point["type"] not in ("pad", "sunssf") and point["name"] not in ("ID", "L"):
            row = [point["name"], start, point["type"], size, str(point.get("sf", "")), point.get("units", "")]
            rows.append([*row, point.get("static") == "S"])
        elif point["type"] == "sunssf":
            rows.append([point["name"], start, "sunssf", size])
        start += size
    return rows, start


def model_of(number: int) -> Json | None:
    """The model as our file has it, or None if its points' places depend on more than itself."""
    source: Json = json.loads((MODELS / f"model_{number}.json").read_text())["group"]
    rows, end = points_of(source["points"], 0)
    groups = source.get("groups", [])
    model: Json = {"name": source["name"], "label": source.get("label", ""), "points": rows}
    if not groups:
        return model
    group = groups[0]
    if len(groups) > 1 or group.get("groups"):
        return None
    inner, length = points_of(group["points"], 0)
    return {**model, "repeats": {"name": group["name"], "offset": end, "length": length, "points": inner}}


def text() -> str:
    """The file."""
    lines = [HEAD]
    for number in WANTED:
        model = model_of(number)
        if model is None:
            continue
        lines.append(
            f'"{number}":\n  name: {model["name"]}\n  label: {json.dumps(model["label"])}\n  points:{"" if model["points"] else " []"}\n'
        )
        lines += [f"    - {json.dumps(row)}\n" for row in model["points"]]
        if repeats := model.get("repeats"):
            lines.append(f"  repeats:\n    name: {repeats['name']}\n    offset: {repeats['offset']}\n    length: {repeats['length']}\n")
            lines.append("    points:\n")
            lines += [f"      - {json.dumps(row)}\n" for row in repeats["points"]]
    return "".join(lines)


def main(arguments: list[str]) -> int:
    """Exit code: 0 written or equal, 1 different."""
    if arguments == ["--check"]:
        same = TARGET.is_file() and TARGET.read_text("utf-8") == text()
        if not same:
            sys.stderr.write("protocols/templates/sunspec-models.yaml is not what pysunspec2 gives: run tools/sunspec.py and commit it\n")
        return 0 if same else 1
    TARGET.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
