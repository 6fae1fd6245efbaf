"""A SunSpec device is found and its points become tags: the walk against maps as devices have them, and against wrong ones.

The registers are laid out by pysunspec2, which is somebody else's implementation of the same models.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sunspec2.mb import unimpl_value  # type: ignore[import-untyped]  # the package has no types

from protocols.modbus.check import check
from protocols.model import Quality
from protocols.templates.sunspec import ABSENT, KINDS, MAX_READ, Found, SunSpecError, models, walk
from tests.peers.libmodbus import LibmodbusServer
from tests.protocols.templates.proof import connection, read
from tests.protocols.templates.sunspec_map import suns_map

ROOT = Path(__file__).parents[3]


def drive(registers: dict[int, int], wanted: tuple[int, ...] = ()) -> Found:
    """Walk through ``registers``; what is not there is refused, as by an exception of the device."""
    steps = walk(wanted)
    asked = next(steps)
    try:
        while True:
            address, count = asked
            assert 1 <= count <= MAX_READ
            there = all(at in registers for at in range(address, address + count))
            asked = steps.send([registers[at] for at in range(address, address + count)] if there else None)
    except StopIteration as end:
        found: Found = end.value
        return found


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_the_map_is_found_at_each_of_its_three_places(base: int) -> None:
    found = drive(suns_map(base, {1: {"Mn": "Maker", "SN": "123"}, 103: {"W": 4210, "W_SF": -1, "Hz": 5002, "Hz_SF": -2}}))
    assert [model for model, _, _ in found.models] == [1, 103]
    tags = {tag["name"]: tag for tag in found.tags}
    assert tags["inverter_three_phase/W"]["scale"] == 0.1
    assert tags["inverter_three_phase/Hz"] | {"at": ""} == {
        "name": "inverter_three_phase/Hz", "at": "", "kind": "uint16", "scale": 0.01, "unit": "Hz", "invalid": [0xFFFF],
    }  # fmt: skip
    assert tags["common/Mn"]["kind"] == "string"
    assert tags["inverter_three_phase/W_SF"]["kind"] == "int16"


def test_what_a_device_does_not_implement_is_left_out_and_told() -> None:
    found = drive(suns_map(40000, {103: {"W": 4210, "W_SF": 0}}))
    assert "inverter_three_phase/W" in {tag["name"] for tag in found.tags}
    assert {"inverter_three_phase/DCA", "inverter_three_phase/TmpCab"} <= set(found.left_out)


def test_what_means_no_value_is_what_pysunspec2_says() -> None:
    """For every type of theirs that is a number here; accumulators excepted, as they begin at 0."""
    theirs = {kind: number for kind, number in unimpl_value.items() if KINDS.get(kind, "string") not in ("string", "float32", "float64")}
    assert {kind for kind in theirs if kind not in ABSENT} == {"acc16", "acc32", "acc64"}
    assert {kind: ABSENT[kind] for kind in theirs if kind in ABSENT} == {kind: theirs[kind] for kind in theirs if kind in ABSENT}
    assert set(ABSENT) - set(theirs) == {"raw16", "bitfield64"}


async def test_what_an_inverter_has_by_day_is_bad_by_night() -> None:
    """Walked by day, read by night through the driver: what pysunspec2 writes for "not implemented" is no value, what counts is."""
    day = suns_map(40000, {
        103: {"A": 12, "A_SF": -1, "W": 4210, "W_SF": 0, "WH": 81234, "WH_SF": 0, "St": 4, "TmpCab": 31, "Tmp_SF": 0, "Evt1": 0},
        160: {"DCA_SF": -2, "DCWH_SF": 0, "module": [{"DCA": 512, "DCWH": 77}]},
        113: {"W": 4210.5},
    })  # fmt: skip
    night = suns_map(40000, {103: {"WH": 81240, "WH_SF": 0, "W_SF": 0}, 160: {"DCWH_SF": 0, "module": [{"DCWH": 0}]}, 113: {}})
    assert day.keys() == night.keys()
    tags = drive(day).tags
    made = {"name": "pv", "tags": [{key: value for key, value in tag.items() if key != "scan_s"} for tag in tags]}
    assert check(connection([made], 502)) == []
    async with LibmodbusServer(units=[1]) as server:
        await server.set(1, "holding", 40000, *day.values())
        by_day = (await read(connection([made], server.port)))["pv"]
        await server.set(1, "holding", 40000, *night.values())
        by_night = (await read(connection([made], server.port)))["pv"]
    assert {quality for _, quality in by_day.values()} == {Quality.GOOD}
    inverter = {name.rpartition("/")[2]: reading for name, reading in by_night.items() if name.startswith("inverter_three_phase/")}
    assert {name for name, (_, quality) in inverter.items() if quality is Quality.GOOD} == {"WH", "WH_SF", "W_SF"}
    assert {name for name, (_, quality) in inverter.items() if quality is Quality.BAD_OUT_OF_SERVICE} >= {
        "A",
        "A_SF",
        "W",
        "St",
        "TmpCab",
        "Evt1",
    }
    assert by_night["mppt/module/1/DCA"] == (0, Quality.BAD_OUT_OF_SERVICE)
    assert by_night["mppt/module/1/DCWH"] == (0, Quality.GOOD)
    value, quality = by_night["inverter_three_phase_float/W"]
    assert (math.isnan(value), quality) == (True, Quality.GOOD)


def test_a_repeating_group_is_placed_as_often_as_the_model_is_long() -> None:
    found = drive(suns_map(40000, {160: {"DCA_SF": -2, "DCV_SF": -1, "module": [{"DCA": 512, "DCV": 3805}, {"DCA": 499, "DCV": 3799}]}}))
    tags = {tag["name"]: tag for tag in found.tags}
    assert int(tags["mppt/module/2/DCA"]["at"].partition(":")[2]) - int(tags["mppt/module/1/DCA"]["at"].partition(":")[2]) == 20
    assert tags["mppt/module/2/DCV"]["scale"] == 0.1


def test_only_the_wanted_models_become_tags() -> None:
    found = drive(suns_map(40000, {1: {"Mn": "Maker"}, 103: {"W": 1, "W_SF": 0}}), (103,))
    assert {tag["name"].partition("/")[0] for tag in found.tags} == {"inverter_three_phase"}


def test_two_models_of_a_kind_keep_names_of_their_own() -> None:
    first, second = suns_map(40000, {203: {"W": 1, "W_SF": 0}}), suns_map(40000, {203: {"W": 2, "W_SF": 0}})
    end = max(first) - 1
    joined = {at: value for at, value in first.items() if at < end} | {
        end + at - 40002: value for at, value in second.items() if at >= 40002
    }
    assert {tag["name"].partition("/")[0] for tag in drive(joined).tags} == {"ac_meter_abcn", "ac_meter_abcn-2"}


def test_a_model_that_nobody_knows_is_stepped_over() -> None:
    registers = suns_map(40000, {103: {"W": 1, "W_SF": 0}})
    moved = (
        {at + (7 if at >= 40002 else 0): value for at, value in registers.items()}
        | {40002: 64001, 40003: 5}
        | dict.fromkeys(range(40004, 40009), 9)
    )
    assert [model for model, _, _ in drive(moved).models] == [64001, 103]


@pytest.mark.parametrize(
    ("registers", "says"),
    [
        ({}, "no SunSpec device"),
        ({40000: 1, 40001: 2}, "no SunSpec device"),
        (dict(zip(range(40000, 40004), [0x5375, 0x6E53, 103, 50], strict=True)), "cannot be read in whole"),
        (dict(zip(range(40000, 40004), [0x5375, 0x6E53, 9999, 65000], strict=True)), "beyond the last address"),
    ],
)
def test_a_wrong_map_is_told(registers: dict[int, int], says: str) -> None:
    with pytest.raises(SunSpecError, match=says):
        drive(registers)


def test_a_map_without_end_is_told() -> None:
    """A device whose models have no length does not keep the walk for ever."""
    registers = dict.fromkeys(range(40000, 60000), 0) | {40000: 0x5375, 40001: 0x6E53}
    with pytest.raises(SunSpecError, match="more than"):
        drive(registers)


def test_no_map_makes_the_walk_fail_otherwise() -> None:
    """Mutated maps give tags or a SunSpecError, nothing else, and never more tags than registers."""
    good = suns_map(40000, {1: {"Mn": "Maker"}, 103: {"W": 1, "W_SF": 0}, 160: {"DCA_SF": 0, "module": [{"DCA": 1}]}})
    chance = random.Random(4)
    for _ in range(2000):
        registers: dict[int, Any] = dict(good)
        for at in chance.sample([*registers], chance.randint(1, 6)):
            registers[at] = chance.choice([0, 1, 0xFFFF, 0x8000, chance.randrange(65536)])
        try:
            assert len(drive(registers).tags) <= len(registers)
        except SunSpecError:
            continue


def test_the_models_are_those_of_pysunspec2() -> None:
    """The committed file is what the tool makes of the package."""
    assert subprocess.run([sys.executable, "tools/sunspec.py", "--check"], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_lengths_agree_with_the_published_models() -> None:
    """A point lies behind the last one, without a hole but for pads, and within its group."""
    for number, model in models().items():
        ends = [point.offset + point.size for point in model.points]
        assert all(point.offset >= 2 for point in model.points), number
        assert ends == sorted(ends), number
        if model.repeats:
            assert all(point.offset + point.size <= model.repeats.length for point in model.repeats.points), number
