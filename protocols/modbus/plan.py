"""From tags to the fewest requests, computed once. Pure: a scan only executes the plan.

Tags of one period and table are sorted by place and cut into blocks so that the cost is least: every request costs its
overhead (frame bytes, silence, turn-around), every register costs its bytes. Reading over a gap is right where it is
cheaper than another request, up to ``max_gap``, never across a hole that the device is known to refuse. The cut is a
shortest path with a sliding-window minimum, so it is linear in the number of tags.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocols import model
from protocols.modbus import config
from protocols.modbus.address import Table
from protocols.modbus.config import AnyConnection, ModbusRtu, bits_per_character
from protocols.modbus.decode import Recipe, compile_recipe
from protocols.modbus.frames import Request, read_request
from protocols.modbus.wire import Block, Wire, wire_of

TCP_REQUEST_S: Final = 0.002
"""What a round trip over a network costs beyond its bytes, roughly: only its relation to TCP_BYTE_S matters."""
TCP_BYTE_S: Final = 1e-6
TURN_AROUND_S: Final = 0.005
"""How long a serial device thinks before it answers, roughly."""
FRAME_BYTES: Final = 13
"""An RTU read: 8 bytes of request and 5 around the answer's data."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds on the connection for each request and for each byte of answer."""

    request_s: float
    byte_s: float

    def of(self, block: Block) -> float:
        return self.request_s + self.byte_s * block.size


def silence_s(options: ModbusRtu) -> float:
    """t3.5, the silence between frames: 1.75 ms above 19200 baud (MODBUS over serial line V1.02, 2.5.1.1)."""
    if options.baud_rate > 19200:
        return 0.00175
    return 3.5 * bits_per_character(options) / options.baud_rate


def cost_of(options: AnyConnection, device: config.Device) -> Cost:
    delay = max(options.request_delay_s, device.request_delay_s)
    if isinstance(options, ModbusRtu):
        character_s = bits_per_character(options) / options.baud_rate
        pauses = max(delay, silence_s(options)) + silence_s(options)
        return Cost(FRAME_BYTES * character_s + pauses + TURN_AROUND_S, character_s)
    return Cost(TCP_REQUEST_S + delay, TCP_BYTE_S)


@dataclass(slots=True)
class Known:
    """What a device has taught: kept with the plan, so that a new session does not learn it again."""

    barriers: set[tuple[Table, int]] = field(default_factory=set)
    """Addresses across which no block may reach: the first tag behind a hole."""
    no_mask_write: bool = False
    no_single: bool = False
    """Functions 5 and 6 are refused."""


@dataclass(slots=True)
class Group:
    """The tags of one device that share a period. What is asked and how it is decoded changes only by ``replan``."""

    period_s: float
    slots: tuple[int, ...]
    recipe: Recipe
    blocks: tuple[Block, ...] = ()
    requests: tuple[Request, ...] = ()
    absent: tuple[int, ...] = ()
    """Slots that the device says it does not have."""


@dataclass(slots=True)
class DevicePlan:
    """Everything about one device that a session needs."""

    options: config.Device
    device: model.Device
    wires: tuple[Wire, ...]
    groups: tuple[Group, ...]
    cost: Cost
    known: Known = field(default_factory=Known)

    def load(self) -> float:
        """Share of the connection's time that scanning this device takes."""
        return sum(self.cost.of(block) / group.period_s for group in self.groups for block in group.blocks)

    @property
    def cheapest(self) -> Request:
        """The question to ask when all that matters is whether somebody answers."""
        return self.request(min((self.alone(wire.slot) for wire in self.wires), key=self.cost.of))

    def alone(self, slot: int) -> Block:
        """The block that brings one tag."""
        return _of(self.wires[slot].table, [self.wires[slot]])

    def request(self, block: Block) -> Request:
        return read_request(self.options.unit_id, block.pdu, block.size, self.options.request_delay_s)

    def replan(self, group: Group, absent: Iterable[int]) -> None:
        """Arrange ``group`` anew by what is known, without the ``absent`` tags: no block reaches over them either."""
        group.absent = tuple(absent)
        lost = [self.wires[slot] for slot in group.absent]
        walls = {*self.known.barriers, *((wire.table, wire.number) for wire in lost)}
        wires = [self.wires[slot] for slot in group.slots if slot not in group.absent]
        group.blocks = blocks_of(wires, self.options, self.cost, walls)
        group.requests = tuple(self.request(block) for block in group.blocks)
        group.recipe = compile_recipe(self.device, self.wires, group.blocks, group.absent)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one connection."""

    devices: tuple[DevicePlan, ...]


def make_plan(options: AnyConnection) -> Plan:
    """The plan of ``options``, which passed ``check`` without error."""
    return Plan(tuple(_plan_device(options, device) for device in options.devices))


def _plan_device(options: AnyConnection, device: config.Device) -> DevicePlan:
    wires = tuple(wire_of(slot, tag, device) for slot, tag in enumerate(device.tags))
    tags = tuple(tag.tag(wire.scan_s) for tag, wire in zip(device.tags, wires, strict=True))
    seen = model.Device(connection=options.name, name=device.name, tags=tags)
    cost = cost_of(options, device)
    periods = sorted({wire.scan_s for wire in wires})
    nothing = Recipe(seen, (), 0)
    groups = tuple(Group(period_s, tuple(wire.slot for wire in wires if wire.scan_s == period_s), nothing) for period_s in periods)
    plan = DevicePlan(device, seen, wires, groups, cost)
    for group in groups:
        plan.replan(group, ())
    return plan


def ordered(blocks: Iterable[Block], cost: Cost) -> tuple[Block, ...]:
    """Cheapest first, so that the mean value waits least."""
    return tuple(sorted(blocks, key=lambda block: (cost.of(block), block.table, block.number)))


def blocks_of(wires: Sequence[Wire], device: config.Device, cost: Cost, barriers: Iterable[tuple[Table, int]] = ()) -> tuple[Block, ...]:
    """The cheapest blocks that bring ``wires``."""
    walls = frozenset(barriers)
    found: list[Block] = []
    for table in Table:
        mine = [wire for wire in wires if wire.table is table]
        if mine:
            most = device.max_bits if table.is_bits else device.max_registers
            gap = device.max_gap * 16 if table.is_bits else device.max_gap
            unit_s = cost.byte_s / 8 if table.is_bits else cost.byte_s * 2
            atoms = _atoms(mine, most)
            found.extend(_cut(table, atoms, most, gap, cost.request_s, unit_s, sorted(at for one, at in walls if one is table)))
    return ordered(found, cost)


@dataclass(slots=True)
class _Atom:
    """Tags that overlap, so that they cannot be apart."""

    start: int
    end: int
    slots: list[int]


def _atoms(wires: list[Wire], most: int) -> list[_Atom]:
    atoms: list[_Atom] = []
    for wire in sorted(wires, key=lambda wire: (wire.number, wire.end, wire.slot)):
        last = atoms[-1] if atoms else None
        if last is not None and wire.number < last.end and max(last.end, wire.end) - last.start <= most:
            last.end = max(last.end, wire.end)
            last.slots.append(wire.slot)
        else:
            atoms.append(_Atom(wire.number, wire.end, [wire.slot]))
    return atoms


def _cut(table: Table, atoms: list[_Atom], most: int, gap: int, request_s: float, unit_s: float, walls: Sequence[int]) -> list[Block]:
    """Least-cost cut: ``best[i]`` is the cost of the first i atoms; a block j..i costs request + unit * (end_i - start_j)."""
    best = [0.0]
    cut_before: list[int] = []
    window: deque[tuple[float, int]] = deque()  # (best[j] - unit * start_j, j), rising: the least is first
    for at, atom in enumerate(atoms):
        if at and (atom.start - atoms[at - 1].end > gap or _between(walls, atoms[at - 1].start, atom.start)):
            window.clear()
        price = best[at] - unit_s * atom.start
        while window and window[-1][0] > price:
            window.pop()
        window.append((price, at))
        while atom.end - atoms[window[0][1]].start > most:
            window.popleft()
        price, first = window[0]
        best.append(price + request_s + unit_s * atom.end)
        cut_before.append(first)
    blocks: list[Block] = []
    end = len(atoms)
    while end:
        first = cut_before[end - 1]
        blocks.append(_block(table, atoms[first:end]))
        end = first
    return blocks


def _between(walls: Sequence[int], low: int, high: int) -> bool:
    """Whether a wall stands after ``low``, up to and with ``high``."""
    at = bisect_right(walls, low)
    return at < len(walls) and walls[at] <= high


def _block(table: Table, atoms: Sequence[_Atom]) -> Block:
    start, end = atoms[0].start, max(atom.end for atom in atoms)
    return Block(table, start, end - start, tuple(slot for atom in atoms for slot in atom.slots))


def split(block: Block, wires: Sequence[Wire]) -> tuple[Block, Block] | None:
    """Two blocks for one that the device refuses: at its widest gap, else in its middle; None for what cannot be split."""
    mine = sorted((wires[slot] for slot in block.slots), key=lambda wire: (wire.number, wire.end, wire.slot))
    if len(mine) == 1:
        return None
    ends: list[int] = []
    for wire in mine:
        ends.append(max(wire.end, ends[-1]) if ends else wire.end)
    middle = (block.number + block.end) / 2
    at = max(range(1, len(mine)), key=lambda i: (max(0, mine[i].number - ends[i - 1]), -abs(mine[i].number - middle), -i))
    return _of(block.table, mine[:at]), _of(block.table, mine[at:])


def _of(table: Table, wires: Sequence[Wire]) -> Block:
    start, end = min(wire.number for wire in wires), max(wire.end for wire in wires)
    return Block(table, start, end - start, tuple(wire.slot for wire in wires))
