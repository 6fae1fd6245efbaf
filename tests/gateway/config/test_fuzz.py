"""Whatever the document: a Site or problems, never a crash, and texts that any terminal can show. Seeded, so it repeats."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import check, load, locate, sample
from gateway.config.document import parse, parse_yaml, resolve, show, steps
from gateway.config.drivers import Drivers

PLANT = Path(__file__).with_name("plant.yaml").read_bytes()
ROUNDS = 1500
PIECES = [
    *(bytes([one]) for one in b"\n \t{}[]'\"#|>%\x00\xff"),
    *(one.encode() for one in (": ", "- ", "&a ", "*a", "<<: ", "!!int ", "? ", "---\n", "...\n", "null", "true", "-1", "1e400", "0x")),
    *("\ufeff".encode(), "\x85".encode(), "\u2028".encode(), b"\\ud800"),
]
JUNK: list[Any] = [
    None, True, -1, 0, 2**63, 2**64, 10**40, 1e308, "", "x" * 5000, "\ud800", "\x1b[31m", "a\nb", [], {}, [[]], {"type": "mqtt"}, {"": ""},
    {"type": {}}, {"type": []}, {"from": None}, {"from": []}, "modbus-tcp", [None] * 40, {"[0].x": 1},
]  # fmt: skip


def survives(raw: bytes, drivers: Drivers) -> None:
    site, problems = load(raw, drivers=drivers)
    if site is None:
        assert problems, raw
    else:
        problems = [*problems, *locate(check(site, drivers=drivers), raw)]
    for problem in problems:
        text = f"{problem.path} {problem.message} {problem.advice}"
        text.encode()
        assert len(text) < 5000 or len(problem.path) > 1000
        assert problem.message
        assert "\x1b" not in text


def test_mutated_bytes(drivers: Drivers) -> None:
    dice = random.Random(20261121)
    bases = [PLANT, sample(drivers=drivers).encode()]
    for _ in range(ROUNDS):
        raw = bytearray(dice.choice(bases))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(raw))
            raw[at : at + dice.choice((0, 1, 1, 20))] = dice.choice((*PIECES, bytes([dice.randrange(256)])))
        survives(bytes(raw), drivers)


def test_documents_cut_at_every_place(drivers: Drivers) -> None:
    for end in range(0, len(PLANT), 7):
        survives(PLANT[:end], drivers)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def test_mutated_values(drivers: Drivers) -> None:
    dice = random.Random(7)
    document, _ = parse(PLANT)
    assert document is not None
    for _ in range(ROUNDS):
        whole = copy.deepcopy(document.value)
        for _ in range(dice.randint(1, 3)):
            *outer, last = dice.choice([place for place in places(whole) if place])
            target = whole
            for step in outer:
                target = target[step]
            if dice.random() < 0.2:
                del target[last]
            else:
                target[last] = copy.deepcopy(dice.choice(JUNK))
        survives(json.dumps(whole).encode(), drivers)


def test_any_value_in_place_of_any_value(drivers: Drivers) -> None:
    """Every place with every junk: the loader and the walk agree that something is wrong, or nothing is."""
    document, _ = parse(PLANT)
    assert document is not None
    for place in places(document.value)[1:]:
        for junk in JUNK[:: 1 if len(place) < 4 else 3]:
            whole = copy.deepcopy(document.value)
            target = whole
            for step in place[:-1]:
                target = target[step]
            target[place[-1]] = copy.deepcopy(junk)
            survives(json.dumps(whole).encode(), drivers)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_at_all(text: str) -> None:
    document, problems = parse_yaml(text.encode(errors="replace"))
    assert document is not None or problems


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_plain_scalar_resolves(text: str) -> None:
    assert isinstance(resolve(text), str | int | float | None)


@given(st.lists(st.one_of(st.integers(0, 10**6), st.text(max_size=20)), max_size=6))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_path_can_be_read_back(path: list[str | int]) -> None:
    assert steps(show(tuple(path))) == tuple(path)
