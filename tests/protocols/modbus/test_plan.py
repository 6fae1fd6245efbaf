"""The planner: fewest requests, within every limit, every tag in exactly one block; and splitting what is refused."""

from __future__ import annotations

import itertools
import random
import time

import msgspec
import pytest

from protocols.modbus import config
from protocols.modbus.address import Table
from protocols.modbus.plan import Cost, blocks_of, make_plan, silence_s, split
from protocols.modbus.wire import Block, Wire, wire_of
from tests.protocols.modbus.plc import device, options, tag

FAST = Cost(0.002, 1e-6)


def wires_of(*tags: dict[str, object], **fields: object) -> tuple[list[Wire], config.Device]:
    one = msgspec.convert(device(*tags, **fields), config.Device)
    return [wire_of(at, each, one) for at, each in enumerate(one.tags)], one


def cut(*tags: dict[str, object], cost: Cost = FAST, barriers: tuple[tuple[Table, int], ...] = (), **fields: object) -> list[str]:
    wires, one = wires_of(*tags, **fields)
    return sorted(str(block) for block in blocks_of(wires, one, cost, barriers))


def test_neighbours_are_read_at_once() -> None:
    assert cut(*(tag(f"holding:{at}") for at in range(10))) == ["holding:0..9"]


def test_tables_are_never_mixed() -> None:
    tags = [tag("holding:0"), tag("input:0"), tag("coil:0", "bool"), tag("discrete:0", "bool")]
    assert cut(*tags) == ["coil:0", "discrete:0", "holding:0", "input:0"]


def test_gaps_are_read_over_up_to_the_limit() -> None:
    tags = [tag("holding:0"), tag("holding:33"), tag("holding:67")]
    assert cut(*tags) == ["holding:0..33", "holding:67"]
    assert cut(*tags, max_gap=0) == ["holding:0", "holding:33", "holding:67"]
    assert cut(*tags, max_gap=100) == ["holding:0..67"]


def test_a_gap_that_costs_more_than_a_request_is_not_read_over() -> None:
    """On a slow line, ten unused registers cost more than asking twice."""
    dear = Cost(request_s=0.01, byte_s=0.001)
    assert cut(tag("holding:0"), tag("holding:11"), cost=dear) == ["holding:0", "holding:11"]
    assert cut(tag("holding:0"), tag("holding:5"), cost=dear) == ["holding:0..5"]


def test_a_hundred_floats_take_two_requests() -> None:
    assert len(cut(*(tag(f"holding:{2 * at}", "float32") for at in range(100)))) == 2


def test_2000_bits_take_one_request_and_2001_take_two() -> None:
    assert cut(*(tag(f"coil:{at}", "bool") for at in range(2000))) == ["coil:0..1999"]
    assert len(cut(*(tag(f"coil:{at}", "bool") for at in range(2001)))) == 2


def test_the_devices_own_maximum_holds() -> None:
    blocks = cut(*(tag(f"holding:{at}") for at in range(30)), max_registers=10)
    assert len(blocks) == 3


def test_a_value_is_never_torn_over_two_requests() -> None:
    wires, one = wires_of(*(tag(f"holding:{4 * at}", "uint64") for at in range(40)), max_registers=10)
    for block in blocks_of(wires, one, FAST):
        assert all(block.number <= wires[slot].number and wires[slot].end <= block.end for slot in block.slots)


def test_no_block_reaches_over_a_known_hole() -> None:
    tags = [tag("holding:0"), tag("holding:5"), tag("holding:9")]
    assert cut(*tags, barriers=((Table.HOLDING, 4),)) == ["holding:0", "holding:5..9"]
    assert cut(*tags, barriers=((Table.INPUT, 4),)) == ["holding:0..9"]


def test_tags_of_each_period_are_asked_apart() -> None:
    plan = make_plan(options(devices=[device(tag("holding:0"), tag("holding:1", scan_s=10.0), tag("holding:2"), scan_s=2.0)])).devices[0]
    assert [(group.period_s, [str(block) for block in group.blocks]) for group in plan.groups] == [
        (2.0, ["holding:0..2"]),
        (10.0, ["holding:1"]),
    ]


def test_the_cheapest_request_comes_first() -> None:
    plan = make_plan(options(devices=[device(*(tag(f"holding:{at}") for at in range(100)), tag("input:0"))])).devices[0]
    assert [str(block) for block in plan.groups[0].blocks] == ["input:0", "holding:0..99"]


@pytest.mark.parametrize("seed", range(150))
def test_random_plans_obey_every_limit_and_cost_least(seed: int) -> None:
    """Compared with an exhaustive cut of the same tags: no cheaper plan exists."""
    rng = random.Random(seed)
    most, gap = rng.randint(4, 20), rng.randint(0, 12)
    places = sorted(rng.sample(range(60), rng.randint(1, 9)))
    kinds = ["uint16", "uint32"] if seed % 2 else ["uint16"]
    tags = [tag(f"holding:{at}", rng.choice(kinds), name=f"t{at}") for at in places]
    cost = Cost(rng.choice([0.001, 0.01, 0.05]), rng.choice([1e-5, 1e-3, 2e-3]))
    wires, one = wires_of(*tags, max_registers=most, max_gap=gap)
    blocks = blocks_of(wires, one, cost)
    assert sorted(slot for block in blocks for slot in block.slots) == list(range(len(tags)))
    assert all(block.count <= most for block in blocks)
    if len(kinds) == 1:
        assert sum(cost.of(block) for block in blocks) == pytest.approx(least(wires, most, gap, cost))


def least(wires: list[Wire], most: int, gap: int, cost: Cost) -> float:
    """The least cost, by trying every cut."""
    best = float("inf")
    for pattern in range(2 ** (len(wires) - 1)):
        runs, run = [], [wires[0]]
        for at, wire in enumerate(wires[1:]):
            if pattern >> at & 1:
                runs.append(run)
                run = []
            run.append(wire)
        runs.append(run)
        legal = all(
            one[-1].end - one[0].number <= most and all(b.number - a.end <= gap for a, b in itertools.pairwise(one)) for one in runs
        )
        if legal:
            best = min(best, sum(cost.request_s + cost.byte_s * 2 * (one[-1].end - one[0].number) for one in runs))
    return best


def test_planning_is_linear_in_the_number_of_tags() -> None:
    """50,000 bits: a plan that compared every pair would need 2.5 thousand million steps."""
    wires, one = wires_of(*(tag(f"coil:{at}", "bool") for at in range(50_000)))
    began = time.process_time()
    assert len(blocks_of(wires, one, FAST)) == 25
    assert time.process_time() - began < 30


def test_a_refused_block_is_split_at_its_widest_gap() -> None:
    wires, _ = wires_of(tag("holding:0"), tag("holding:2"), tag("holding:20"), tag("holding:21"))
    parts = split(Block(Table.HOLDING, 0, 22, (0, 1, 2, 3)), wires)
    assert parts is not None
    assert [str(part) for part in parts] == ["holding:0..2", "holding:20..21"]


def test_a_block_without_gaps_is_split_in_its_middle_and_one_tag_not_at_all() -> None:
    wires, _ = wires_of(*(tag(f"holding:{at}") for at in range(8)))
    parts = split(Block(Table.HOLDING, 0, 8, tuple(range(8))), wires)
    assert parts is not None
    assert [str(part) for part in parts] == ["holding:0..3", "holding:4..7"]
    assert split(Block(Table.HOLDING, 3, 1, (3,)), wires) is None


def test_the_silence_between_frames_is_the_standards() -> None:
    """3.5 characters of 11 bits up to 19200 baud, 1.75 ms above (MODBUS over serial line V1.02, 2.5.1.1)."""
    line = options("modbus-rtu", baud_rate=9600)
    assert isinstance(line, config.ModbusRtu)
    assert silence_s(line) == pytest.approx(3.5 * 11 / 9600)
    assert silence_s(msgspec.structs.replace(line, baud_rate=115200)) == 0.00175
