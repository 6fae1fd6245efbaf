"""The README's sample runs, and its examples of places compile."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import protocols.payload
from protocols.payload import check
from tests.protocols.payload.rig import Told

README = (Path(protocols.payload.__file__).parent / "README.md").read_text()


def test_the_sample_runs() -> None:
    (sample,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", sample], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == "[21.5] [0] [1795269600000000000]\n"


@pytest.mark.parametrize("format", ["json", "cbor", "senml-json", "senml-cbor", "csv", "xml", "raw", "sparkplug"])
def test_every_example_of_a_place_is_one(format: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `") and f"`{format}`" in line.split("|")[1]]
    examples = re.findall(r"`([^`]+)`", row.split("|")[3])
    assert examples
    for at in examples:
        told = Told({"a": ("int32", at)}, format=format)
        assert list(check(told.tags, told.options, "tags", "payload")) == [], at
