"""Where campaigns write down what they measured, so that documents quote figures and not memories."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Final

LONG: Final = os.environ.get("HOLDFAST_CAMPAIGN") == "long"
"""Whether the large figures of the promises are asked for: ``make long``."""
FILE: Final = Path(__file__).parents[2] / "build" / "lab" / "figures.ndjson"


def record(name: str, **numbers: float | str) -> None:
    """Print one campaign's figures and append them, with date and size, as a line of JSON to ``build/lab/figures.ndjson``."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    line = json.dumps({"campaign": name, "size": "long" if LONG else "CI", "date": now, **numbers})
    print(line)  # noqa: T201 - pytest shows it with -s or -rP
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.open("a") as file:
        file.write(line + "\n")
