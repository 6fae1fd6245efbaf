"""Tags become few blocks and few requests, and every byte that is asked for fits into the answer."""

from __future__ import annotations

import random

from protocols.model import Kind
from protocols.s7.address import Area
from protocols.s7.config import S7, Device, Tag
from protocols.s7.plan import HEADER, ITEM_HEADER, MOST_ITEMS, Item, Wire, blocks, items_of, make_plan, most_bytes, requests, split


def wires(*places: str, kind: Kind = Kind.UINT16) -> list[Wire]:
    tags = tuple(Tag(name=f"t{at}", kind=kind, at=place) for at, place in enumerate(places))
    (device,) = make_plan(S7(name="c", host="h", devices=(Device(name="d", tags=tags),))).devices
    return list(device.wires)


def spans(found: list[Wire], *, max_gap: int = 16, most: int = 222, barriers: frozenset[tuple[Area, int, int]] = frozenset()) -> list[str]:
    made = blocks(found, set(barriers), max_gap=max_gap, most=most)
    return [f"{block.number}:{block.first}+{block.size}" for block in made]


def test_what_lies_close_together_is_one_block() -> None:
    assert spans(wires("DB1.DBW0", "DB1.DBW18", "DB1.DBW37", "DB2.DBW0", "MW0")) == ["0:0+2", "1:0+20", "1:37+2", "2:0+2"]


def test_a_block_ends_at_a_barrier_and_where_no_answer_could_hold_more() -> None:
    assert spans(wires("DB1.DBW0", "DB1.DBW2"), barriers=frozenset({(Area.DATA, 1, 2)})) == ["1:0+2", "1:2+2"]
    assert spans(wires(*(f"DB1.DBW{at}" for at in range(0, 300, 2)))) == ["1:0+222", "1:222+78"]


def test_tags_that_overlap_are_read_once() -> None:
    assert spans(wires("DB1.DBW0", "DB1.DBW1", "DB1.DBW0")) == ["1:0+3"]


def test_a_block_is_halved_until_one_place_is_left() -> None:
    (block,) = blocks(wires("DB1.DBW0", "DB1.DBW2", "DB1.DBW2", "DB1.DBW4"), set(), max_gap=16, most=222)
    halves = split(block)
    assert halves is not None
    assert [[wire.slot for wire in half.wires] for half in halves] == [[0], [1, 2, 3]]
    (same,) = blocks(wires("DB1.DBW2", "DB1.DBW2"), set(), max_gap=16, most=222)
    assert split(same) is None


def test_every_request_and_every_answer_fits_into_the_pdu() -> None:
    dice = random.Random(7)
    for _ in range(300):
        pdu = dice.choice([112, 240, 480, 960])
        items = [Item(Area.DATA, 1, 0, dice.randint(1, most_bytes(pdu))) for _ in range(dice.randint(0, 60))]
        made = requests(items, pdu)
        assert [item for request in made for item in request] == items
        for request in made:
            answer = HEADER + sum(ITEM_HEADER + item.size + item.size % 2 for item in request) - request[-1].size % 2
            assert answer <= pdu
            assert HEADER - 2 + 12 * len(request) <= pdu
            assert len(request) <= MOST_ITEMS


def test_what_is_longer_than_an_answer_is_read_in_parts() -> None:
    (block,) = blocks(wires("DB1.DBB10", kind=Kind.FLOAT64), set(), max_gap=16, most=3)
    assert [(item.first, item.size) for item in items_of(block, 3)] == [(10, 3), (13, 3), (16, 2)]
