"""The Structs that ARE the configuration of a Modbus connection: types, defaults, limits, units and descriptions.

Four ways to connect share everything but the way. A tag says *where* (``at``), *what* (``kind`` and the orders) and
*how often*; what cannot be said by types and limits is checked in ``check.py``. Nothing here touches the network.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.options import Host, Name, TagOptions
from protocols.tls import Tls

Order = Literal["big", "little"]


class Tag(TagOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value of a Modbus device."""

    at: Annotated[
        Annotated[str, Meta(min_length=1, max_length=40)] | Annotated[int, Meta(ge=1, le=465536)],
        Meta(description="Where it lies: holding:0, input:10, coil:3, discrete:4, a bit holding:7.3, or Modicon 40001, 400001, 30001."),
    ]
    word_order: Annotated[
        Order | None, Meta(description="Which register of several is first: big = most significant; empty takes the device's.")
    ] = None
    byte_order: Annotated[
        Order | None, Meta(description="Which byte of a register is first: big = as Modbus says; empty takes the device's.")
    ] = None
    encoding: Annotated[Literal["binary", "bcd"], Meta(description="bcd: four bits a decimal digit (unsigned integers only).")] = "binary"
    length: Annotated[int, Meta(ge=0, le=250, description="Bytes of a string or of bytes; two fit into a register.")] = 0
    charset: Annotated[Literal["utf-8", "latin-1"], Meta(description="How a string's bytes are written.")] = "utf-8"
    invalid: Annotated[
        tuple[int, ...],
        Meta(max_length=8, description="Raw numbers, before scaling, by which the device says that it has no value: they are read as bad."),
    ] = ()
    scan_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=86400)] | None, Meta(description="Period, in seconds; empty takes the device's.")
    ] = None


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One unit id."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    unit_id: Annotated[int, Meta(ge=0, le=255, description="Modbus unit id: 1 to 247; 0 or 255 for many devices that speak TCP alone.")] = 1
    scan_s: Annotated[float, Meta(ge=0.01, le=86400, description="Period of its tags, in seconds.")] = 1.0
    address_base: Annotated[
        Literal[0, 1], Meta(description="0: addresses as on the wire; 1: the manual counts from 1. Modicon notation needs neither.")
    ] = 0
    max_registers: Annotated[int, Meta(ge=1, le=125, description="Most registers that the device gives at once.")] = 125
    max_bits: Annotated[int, Meta(ge=1, le=2000, description="Most coils or discrete inputs that the device gives at once.")] = 2000
    max_gap: Annotated[
        int, Meta(ge=0, le=124, description="Most unused registers (times 16: bits) that are read over to save a request; 0 for none.")
    ] = 32
    request_delay_s: Annotated[float, Meta(ge=0, le=60, description="Pause that the device needs before each request, in seconds.")] = 0.0
    word_order: Annotated[Order, Meta(description="Which register of several is first; big = most significant.")] = "big"
    byte_order: Annotated[Order, Meta(description="Which byte of a register is first; big = as Modbus says.")] = "big"
    write_with: Annotated[
        Literal["auto", "single", "multiple"],
        Meta(description="Functions 5 and 6 (single), 15 and 16 (multiple), or auto: single where it fits, else what the device takes."),
    ] = "auto"
    tags: Annotated[tuple[Tag, ...], Meta(max_length=65536, description="Its values.")] = ()


class Connection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True):
    """What every Modbus connection has. Not a type of its own."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    timeout_s: Annotated[
        float, Meta(ge=0.01, le=60, description="Longest wait for an answer, in seconds; on serial lines beyond its time on the wire.")
    ] = 1.0
    settle_s: Annotated[
        Annotated[float, Meta(ge=0, le=60)] | None,
        Meta(description="RTU: silence that must pass after a lost or broken answer, in seconds; empty takes timeout_s."),
    ] = None
    request_delay_s: Annotated[float, Meta(ge=0, le=60, description="Pause before each request of any device, in seconds.")] = 0.0
    retry_max_s: Annotated[float, Meta(ge=1, le=3600, description="Longest pause between tries to reach a silent device, in seconds.")] = (
        60.0
    )
    devices: Annotated[tuple[Device, ...], Meta(max_length=1000, description="The devices behind this connection.")] = ()


class Network(Connection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every Modbus connection over a network has. Not a type of its own."""

    host: Annotated[Host, Meta(description="Host name or IP address.")]
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 502
    connect_timeout_s: Annotated[float, Meta(ge=0.1, le=60, description="Longest wait for the connection, in seconds.")] = 5.0
    connect_delay_s: Annotated[float, Meta(ge=0, le=60, description="Pause between connecting and the first request, in seconds.")] = 0.0
    idle_close_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Close the connection when nothing is due for so long, and open it for the next request; 0 keeps it open.",
        ),
    ] = 0.0


class ModbusTcp(Network, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-tcp"):
    """Modbus TCP."""


class ModbusTls(Network, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-tls"):
    """Modbus TCP over TLS, as the Modbus/TCP Security specification says (mutual certificates, port 802)."""

    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 802
    tls: Annotated[Tls, Meta(description="Certificates.")] = Tls()


class ModbusRtuTcp(Network, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-rtu-tcp"):
    """RTU frames over TCP: a transparent serial device server."""


class ModbusRtu(Connection, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-rtu"):
    """RTU over a serial line."""

    serial_port: Annotated[str, Meta(min_length=1, max_length=4096, description="Serial port, best by its /dev/serial/by-id name.")]
    baud_rate: Annotated[int, Meta(ge=300, le=4_000_000, description="Bits per second.")] = 19200
    parity: Annotated[Literal["even", "odd", "none"], Meta(description="Parity; even is the standard's default.")] = "even"
    data_bits: Annotated[Literal[7, 8], Meta(description="Data bits; RTU needs 8.")] = 8
    stop_bits: Annotated[Literal[1, 2], Meta(description="Stop bits; the standard wants 2 where there is no parity.")] = 1
    echo: Annotated[bool, Meta(description="Whether the adapter hears its own requests (two-wire adapters without muting).")] = False


AnyConnection = ModbusTcp | ModbusTls | ModbusRtuTcp | ModbusRtu


def bits_per_character(options: ModbusRtu) -> int:
    """Bits that one character takes on the wire: start, data, parity, stop."""
    return 1 + options.data_bits + (options.parity != "none") + options.stop_bits
