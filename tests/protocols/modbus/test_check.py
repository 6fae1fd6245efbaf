"""Checking: all problems at once, each with path and advice; and nothing to say about what is right."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocols.modbus.check import check
from protocols.modbus.config import AnyConnection
from protocols.modbus.driver import RTU, RTU_OVER_TCP, TCP, TLS
from protocols.model import Kind
from tests.protocols.modbus.plc import device, options, tag


def said(type_name: str = "modbus-tcp", **fields: Any) -> list[tuple[str, str]]:  # Any: fields of a connection
    """Severity and path of every problem."""
    problems = check(options(type_name, **fields))
    assert all(problem.advice and problem.message for problem in problems)
    return [(problem.severity, problem.path) for problem in problems]


def of_tags(*tags: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:  # Any: fields of tags and of a device
    return [(severity, path.removeprefix("devices[0].")) for severity, path in said(devices=[device(*tags, **fields)])]


def test_the_sample_of_the_issue_loads_and_is_right() -> None:
    boiler = {
        "type": "modbus-tcp",
        "name": "boiler-house",
        "host": "192.168.10.20",
        "port": 502,
        "timeout_s": 1.0,
        "devices": [
            {
                "name": "boiler-1",
                "unit_id": 1,
                "scan_s": 1.0,
                "tags": [
                    {"name": "steam/pressure", "at": "holding:0", "kind": "float32", "unit": "bar", "deadband": 0.05},
                    {"name": "feedwater/total", "at": "input:10", "kind": "uint32", "word_order": "little", "scale": 0.001, "unit": "m3"},
                    {"name": "burner/on", "at": "coil:3", "kind": "bool"},
                ],
            }
        ],
    }
    meters = {"type": "modbus-rtu", "name": "meters", "serial_port": "/dev/ttyS1", "baud_rate": 19200, "devices": []}
    for written in (boiler, meters):
        assert check(msgspec.convert(written, AnyConnection)) == []
    kinds = [one.kind for one in TCP.devices(msgspec.convert(boiler, AnyConnection))[0].tags]
    assert kinds == [Kind.FLOAT32, Kind.FLOAT64, Kind.BOOL]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (tag("holding:65536"), "tags[0].at"),
        (tag("holding:65535", "uint32"), "tags[0].at"),
        (tag("coil:0", "uint16"), "tags[0].kind"),
        (tag("holding:0.1", "uint16"), "tags[0].kind"),
        (tag("input:0", writable=True), "tags[0].writable"),
        (tag("discrete:0", "bool", writable=True), "tags[0].writable"),
        (tag("holding:0", "string"), "tags[0].length"),
        (tag("holding:0", "uint16", length=2), "tags[0].length"),
        (tag("holding:0", "float32", encoding="bcd"), "tags[0].encoding"),
        (tag("holding:0", scale=0.0), "tags[0].scale"),
        (tag("holding:0", "bool", scale=2.0), "tags[0].scale"),
        (tag("holding:0", "string", length=2, offset=2.0), "tags[0].offset"),
        (tag("holding:0", writable=True, minimum=2.0, maximum=1.0), "tags[0].minimum"),
        (tag("holding:0", "int16", invalid=[0x8000]), "tags[0].invalid"),
        (tag("holding:0", "uint16", invalid=[-1]), "tags[0].invalid"),
        (tag("holding:0", "uint16", invalid=[0x10000]), "tags[0].invalid"),
        (tag("holding:0", "int8", invalid=[0, 128]), "tags[0].invalid"),
        (tag("holding:0", "int64", invalid=[2**63]), "tags[0].invalid"),
        (tag("holding:0", "uint64", invalid=[16**5000]), "tags[0].invalid"),
        (tag("holding:0", "uint16", encoding="bcd", invalid=[10000]), "tags[0].invalid"),
        (tag("holding:0", "float32", invalid=[0x7FC00000]), "tags[0].invalid"),
        (tag("holding:0", "float64", invalid=[2**53 + 1]), "tags[0].invalid"),
        (tag("holding:0", "bool", invalid=[1]), "tags[0].invalid"),
        (tag("holding:0", "string", length=2, invalid=[0]), "tags[0].invalid"),
        (tag("holding:0", "bytes", length=2, invalid=[0]), "tags[0].invalid"),
    ],
)
def test_an_impossible_tag_is_an_error(wrong: dict[str, Any], path: str) -> None:
    assert ("error", path) in of_tags(wrong)


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [("int16", 0x8000, -32768), ("int32", 0x80000000, -(2**31)), ("int64", 2**64 - 1, -1), ("uint16", -1, 65535), ("int8", 0xFF, -1)],
)
def test_bits_written_for_a_number_are_told_the_number(kind: str, written: int, meant: int) -> None:
    """There is one form: the number that the kind holds. Whoever writes the manual's bits is told which that is."""
    (problem,) = check(options(devices=[device(tag("holding:0", kind, invalid=[written]))]))
    assert f"are {meant} in this kind" in problem.advice
    assert check(options(devices=[device(tag("holding:0", kind, invalid=[meant]))])) == []


def test_the_ends_of_every_kind_can_mean_no_value() -> None:
    ends = {"int8": 2**7, "int16": 2**15, "int32": 2**31, "int64": 2**63, "float32": 2**24, "float64": 2**53}
    for kind, end in ends.items():
        last = end - (not kind.startswith("float"))
        assert of_tags(tag("holding:0", kind, invalid=[-end, last])) == []
        assert of_tags(tag("holding:0", kind, invalid=[-end - 1, last + 1])) == [("error", "tags[0].invalid")] * 2
    assert of_tags(tag("holding:0", "uint8", encoding="bcd", invalid=[99])) == []
    with pytest.raises(msgspec.ValidationError, match="invalid"):
        options(devices=[device(tag("holding:0", invalid=[*range(9)]))])


def test_a_value_larger_than_the_device_gives_at_once_is_an_error() -> None:
    assert of_tags(tag("holding:0", "string", length=40), max_registers=10) == [("error", "tags[0].length")]
    assert of_tags(tag("holding:0", "float64"), max_registers=3) == [("error", "tags[0].kind")]


def test_all_problems_are_said_at_once() -> None:
    tags = [tag("holding:0", name="a"), tag("holding:70000", name="a"), tag("input:0", name="b", writable=True)]
    assert of_tags(*tags) == [("error", "tags[1].name"), ("error", "tags[1].at"), ("error", "tags[2].writable")]


@pytest.mark.parametrize(
    ("first", "second", "severity"),
    [
        (tag("holding:0", "float32"), tag("holding:1", "float32"), "error"),
        (tag("holding:0", "uint64"), tag("holding:3", "uint32"), "error"),
        (tag("holding:0", "float32"), tag("holding:0", "uint32", name="again"), "warning"),
        (tag("holding:0", "float32"), tag("holding:0", "float32", name="again"), "warning"),
        (tag("holding:0", "uint32"), tag("holding:1", "uint16"), "warning"),
        (tag("holding:0", "string", length=8), tag("holding:3", "uint32"), "warning"),
        (tag("holding:0.1", "bool"), tag("holding:0.1", "bool", name="again"), "warning"),
    ],
)
def test_overlaps(first: dict[str, Any], second: dict[str, Any], severity: str) -> None:
    """What no device can mean is an error; what a person may mean is a warning."""
    assert of_tags(first, second) == [(severity, "tags[1].at")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (tag("holding:0"), tag("holding:1")),
        (tag("holding:0"), tag("input:0")),
        (tag("holding:0"), tag("holding:0.3", "bool")),
        (tag("holding:0.2", "bool"), tag("holding:0.3", "bool")),
        (tag("holding:0", "uint8"), tag("holding:0", "uint8", name="high", byte_order="little")),
    ],
)
def test_what_may_share_a_register(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert of_tags(first, second) == []


def test_names_and_units_of_devices() -> None:
    assert said(devices=[device(), device()]) == [("error", "devices[1].name"), ("warning", "devices[1].unit_id")]


@pytest.mark.parametrize("unit_id", [0, 248, 255])
def test_rtu_knows_unit_ids_1_to_247_and_tcp_all(unit_id: int) -> None:
    assert said("modbus-rtu", devices=[device(unit_id=unit_id)]) == [("error", "devices[0].unit_id")]
    assert said("modbus-rtu-tcp", devices=[device(unit_id=unit_id)]) == [("error", "devices[0].unit_id")]
    assert said("modbus-tcp", devices=[device(unit_id=unit_id)]) == []


def test_a_line_that_is_too_slow_is_an_error_and_a_nearly_full_one_a_warning() -> None:
    """100 registers at 9600 baud take about a quarter of a second."""
    tags = [tag(f"holding:{at}") for at in range(100)]
    found = {scan_s: said("modbus-rtu", baud_rate=9600, devices=[device(*tags, scan_s=scan_s)]) for scan_s in (0.2, 0.3, 1.0)}
    assert found == {0.2: [("error", "devices")], 0.3: [("warning", "devices")], 1.0: []}
    (problem,) = check(options("modbus-rtu", baud_rate=9600, devices=[device(*tags, scan_s=0.2)]))
    assert "129%" in problem.message
    assert "plc" in problem.message


def test_a_pause_between_requests_can_make_a_network_too_slow() -> None:
    assert said(request_delay_s=0.5, devices=[device(tag("holding:0"), scan_s=0.1)]) == [("error", "devices")]


def test_serial_settings() -> None:
    assert said("modbus-rtu", data_bits=7) == [("error", "data_bits")]
    assert said("modbus-rtu", parity="none") == [("warning", "stop_bits")]
    assert said("modbus-rtu", parity="none", stop_bits=2) == []


@pytest.mark.parametrize("driver", [TCP, RTU, RTU_OVER_TCP, TLS])
def test_every_option_is_described_and_limited_by_its_struct(driver: Any) -> None:  # Any: the four are of one private kind
    """The schema has a description for every field, so that docs and forms need nothing else."""
    schema = msgspec.json.schema(driver.options)
    shapes = [one for name, one in schema["$defs"].items() if name in (driver.options.__name__, "Device", "Tag")]
    assert len(shapes) == 3
    for shape in shapes:
        assert shape["additionalProperties"] is False
        for name, field in shape["properties"].items():
            assert name == "type" or "description" in field or "$ref" in field, name
