"""Addresses as Step 7 writes them, and what a person hears who writes them otherwise."""

from __future__ import annotations

import pytest

from protocols.model import Kind
from protocols.s7.address import Address, Area, BadAddress, parse
from protocols.s7.check import check
from protocols.s7.config import S7, Device, Tag


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("DB10.DBX4.3", Address(Area.DATA, 10, 4, 3, 0)),
        ("DB1.DBB0", Address(Area.DATA, 1, 0, None, 1)),
        ("DB65535.DBW65534", Address(Area.DATA, 65535, 65534, None, 2)),
        ("DB10.DBD4", Address(Area.DATA, 10, 4, None, 4)),
        ("I0.7", Address(Area.INPUTS, 0, 0, 7, 0)),
        ("IW4", Address(Area.INPUTS, 0, 4, None, 2)),
        ("QB8", Address(Area.OUTPUTS, 0, 8, None, 1)),
        ("MD12", Address(Area.FLAGS, 0, 12, None, 4)),
    ],
)
def test_an_address_is_an_area_a_byte_and_a_width(text: str, place: Address) -> None:
    assert parse(text) == place


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("%DB10.DBD4", "leave the % away"),
        ("E0.1", "write I for E"),
        ("AW4", "Q for A"),
        ("db10.dbd4", "in capitals"),
        ("T5", "copy them into a data block"),
        ("DB10.DBX4", "write it as"),
        ("DB10.DBX4.8", "write it as"),
        ("DB10,REAL4", "write it as"),
        ("M7", "write it as"),
        ("DB0.DBW0", "write it as"),
        ("DB70000.DBW0", "up to 65535"),
        ("DB1.DBW70000", "up to 65535"),
        ("DB1.DBW１", "write it as"),
        ("DB1.DBW1\n", "write it as"),
    ],
)
def test_what_is_no_address_is_told_with_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(BadAddress, match=advice):
        parse(text)


@pytest.mark.parametrize(
    ("kind", "at", "is_right"),
    [
        (Kind.BOOL, "DB1.DBX0.0", True),
        (Kind.BOOL, "DB1.DBB0", False),
        (Kind.UINT8, "MB0", True),
        (Kind.UINT8, "M0.0", False),
        (Kind.INT16, "MW0", True),
        (Kind.INT16, "MD0", False),
        (Kind.FLOAT32, "MD0", True),
        (Kind.FLOAT64, "MB0", True),
        (Kind.FLOAT64, "MD0", False),
        (Kind.STRING, "DB1.DBB0", True),
        (Kind.STRING, "DB1.DBW0", False),
    ],
)
def test_the_width_of_an_address_is_that_of_its_kind(kind: Kind, at: str, is_right: bool) -> None:
    tag = Tag(name="a", kind=kind, at=at, length=10 if kind is Kind.STRING else 0)
    problems = check(S7(name="c", host="h", devices=(Device(name="d", tags=(tag,)),)))
    assert [problem.path for problem in problems] == ([] if is_right else ["devices[0].tags[0].at"])
