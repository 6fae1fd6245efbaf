"""What comes from outside to the templates: a device's SunSpec map, and a template file somebody wrote."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from protocols.templates.device import make
from protocols.templates.library import OWN, Library, Unusable
from protocols.templates.sunspec import MAX_READ, SunSpecError, walk
from tests.fuzz import campaign
from tests.fuzz.mutate import Mutator
from tests.protocols.templates.sunspec_map import suns_map

SEED = campaign.seed()
CONTENTS: dict[int, dict[str, Any]] = {
    1: {"Mn": "Maker", "SN": "1"},
    103: {"W": 4210, "W_SF": -1},
    160: {"DCA_SF": 0, "module": [{"DCA": 1}, {"DCA": 2}]},
}


def test_no_sunspec_map_hangs_or_breaks_the_walk() -> None:
    """A mutated map gives tags or a SunSpecError, after a bounded number of questions."""
    good = suns_map(0, CONTENTS)
    raw = b"".join(good[at].to_bytes(2, "big") for at in sorted(good))
    mutator = Mutator(SEED, [raw], longest=4096)

    def judge(content: bytes) -> None:
        registers = [int.from_bytes(content[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(content), 2)]
        steps = walk()
        try:
            address, count = next(steps)
            for _ in range(10_000):
                assert 1 <= count <= MAX_READ
                there = registers[address : address + count]
                address, count = steps.send(there if len(there) == count else None)
            raise AssertionError("the walk has no end")
        except StopIteration:
            pass  # it came to the end of the map
        except SunSpecError:
            pass  # what a wrong map is for

    campaign.run("sunspec walk", mutator.make, judge, seed=SEED, count=campaign.frames(2_000, 100_000))


def test_no_template_file_breaks_the_library(tmp_path: Path) -> None:
    """A mutated file is a template, or Unusable; what is made of it is a device, or problems."""
    folder = tmp_path / "acme"
    folder.mkdir()
    names = ("inepro/pro380.yaml", "siemens/s7-1200.yaml", "abb/drives-580.yaml", "sunspec/sunspec.yaml")
    files = [path.read_bytes() for name in names if (path := OWN / name).is_file()]
    mutator = Mutator(SEED, files, longest=20_000)
    count = itertools.count()

    def judge(content: bytes) -> None:
        for old in folder.iterdir():
            old.unlink()
        (folder / f"t{next(count)}.yaml").write_bytes(content)
        library = Library([tmp_path])
        try:
            for name in library.names():
                if name.startswith("acme/"):
                    make(library[name], {"name": "m"})
        except (Unusable, KeyError):
            pass  # what a wrong file is for; a name with another folder in it is nobody's

    campaign.run("template file", mutator.make, judge, seed=SEED, count=campaign.frames(60, 5_000))


@pytest.mark.parametrize("seed", [4])
def test_answers_of_any_sort_are_judged(seed: int) -> None:
    """Whatever stands at a template's keys in a site is a device or problems."""
    chance, library = random.Random(seed), Library()
    strange: list[Any] = [None, True, -1, 0, 1e308, float("nan"), "", "x" * 1000, [], [1], {}, {"a": {}}, "3P4W", 10**40]
    templates = [*library.find()]
    for _ in range(2_000):
        template = chance.choice(templates)
        questions = [*template.questions, "nobody"]
        device = {
            "name": "m",
            "answers": {chance.choice(questions): chance.choice(strange)} if chance.random() < 0.9 else chance.choice(strange),
            **({"template_tags": chance.choice(strange)} if chance.random() < 0.3 else {}),
            **({"tags": chance.choice([*strange, [{"name": 7}], [{"name": "a"}, 3]])} if chance.random() < 0.3 else {}),
            **({"scan_s": chance.choice(strange)} if chance.random() < 0.3 else {}),
        }
        make(template, device)
