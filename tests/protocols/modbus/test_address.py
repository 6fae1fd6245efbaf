"""Addresses: plain, hexadecimal, base 1, bits of registers, Modicon; and what is refused, with advice."""

from __future__ import annotations

import pytest

from protocols.modbus.address import Address, Impossible, Table, parse


@pytest.mark.parametrize(
    ("at", "base", "place"),
    [
        ("holding:0", 0, Address(Table.HOLDING, 0)),
        ("holding:1", 1, Address(Table.HOLDING, 0)),
        ("input:65535", 0, Address(Table.INPUT, 65535)),
        ("input:65536", 1, Address(Table.INPUT, 65535)),
        ("coil:3", 0, Address(Table.COIL, 3)),
        ("discrete:4", 0, Address(Table.DISCRETE, 4)),
        ("holding:7.3", 0, Address(Table.HOLDING, 7, 3)),
        ("Holding:0x1F", 0, Address(Table.HOLDING, 31)),
        ("40001", 0, Address(Table.HOLDING, 0)),
        (40001, 1, Address(Table.HOLDING, 0)),
        ("400001", 0, Address(Table.HOLDING, 0)),
        ("465536", 0, Address(Table.HOLDING, 65535)),
        ("49999", 0, Address(Table.HOLDING, 9998)),
        ("30001", 0, Address(Table.INPUT, 0)),
        ("10001", 0, Address(Table.DISCRETE, 0)),
        ("1", 0, Address(Table.COIL, 0)),
        (1, 0, Address(Table.COIL, 0)),
        ("00007", 0, Address(Table.COIL, 6)),
        ("40001.15", 0, Address(Table.HOLDING, 0, 15)),
    ],
)
def test_places(at: str | int, base: int, place: Address) -> None:
    """``at`` means this place; Modicon numbers count from 1 whatever the device's base."""
    assert parse(at, base) == place


@pytest.mark.parametrize(
    ("at", "base"),
    [
        ("holding:0", 1),
        ("holding:65536", 0),
        ("holding:-1", 0),
        ("holding:7.16", 0),
        ("coil:3.1", 0),
        ("register:3", 0),
        ("holding", 0),
        ("40000", 0),
        ("50001", 0),
        ("20001", 0),
        ("4000000", 0),
        ("465537", 0),
        ("", 0),
        ("٤٠٠٠١", 0),
        ("holding:٣", 0),
        ("4000²", 0),
        ("40001.", 0),
    ],
)
def test_impossible_places_are_refused_with_advice(at: str, base: int) -> None:
    with pytest.raises(Impossible) as caught:
        parse(at, base)
    assert caught.value.advice
