"""The live table: a :class:`View` becomes what fits the terminal, from 80x24 upward.

The lower part, what the demonstration is about, always fits; the tags get the rest. Where there is no room for all, each
device shows its first ones and says how many more there are. Pure: the terminal belongs to ``demo.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.demo.view import DeviceView, View, age, is_under_way, size, spark, verdict

ACCOUNT_LINES: Final = 8
"""Height of the panel below: five lines, its border, and the title line above the tags."""
COLUMN_WIDTH: Final = 56
"""A column of tags wants this many characters; wider terminals get more columns."""
WIDTHS: Final[tuple[tuple[int, Literal["left", "right"]], ...]] = ((12, "right"), (5, "left"), (10, "left"), (6, "right"))
"""Value, unit, quality and age; the tag's name gets the rest."""
STALE_S: Final = 5.0
NARROW: Final = 90


def render(view: View, width: int, height: int) -> RenderableType:
    """The whole screen, at most ``height`` lines of ``width`` characters."""
    columns = max(1, (width + 4) // (COLUMN_WIDTH + 2))
    room = max(len(view.devices), height - ACCOUNT_LINES - 1)
    return Group(_title(view, width), _tags(view.devices, columns, room), _account(view, width))


def _title(view: View, width: int) -> Text:
    left = Text.assemble(("Holdfast", "bold"), f"  {view.gateway}   {_clock(view.elapsed_s)}")
    state = ("up", "green") if view.broker.up else ("DOWN", "bold white on red")
    right = Text.assemble(f"{view.broker.name} ", state)
    return Text.assemble(left, " " * max(2, width - left.cell_len - right.cell_len), right)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"


def share_out(sizes: Sequence[int], room: int) -> list[int]:
    """How many of its rows each device may show in ``room`` lines: fair, and what one leaves over goes to the others."""
    given = [0] * len(sizes)
    while room > 0 and any(have < want for have, want in zip(given, sizes, strict=True)):
        for at, want in enumerate(sizes):
            if room > 0 and given[at] < want:
                given[at] += 1
                room -= 1
    return given


def fill(devices: Sequence[DeviceView], columns: int, lines: int) -> list[list[tuple[DeviceView, int]]]:
    """Devices over columns, in order, each with the number of rows it shows; every device takes a heading line as well."""
    per_column = -(-len(devices) // columns) if devices else 0
    packed: list[list[tuple[DeviceView, int]]] = []
    for at in range(0, len(devices), per_column or 1):
        group = devices[at : at + per_column]
        rows = share_out([len(device.rows) for device in group], lines - len(group))
        packed.append(list(zip(group, rows, strict=True)))
    return packed


def _tags(devices: Sequence[DeviceView], columns: int, lines: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    packed = fill(devices, columns, lines)
    for _ in packed:
        grid.add_column(ratio=1)
    if packed:
        grid.add_row(*(Group(*(part for device, shown in group for part in _device(device, shown))) for group in packed))
    return grid


def _device(device: DeviceView, shown: int) -> tuple[Text, Table]:
    more = len(device.rows) - shown
    name = Text(device.name, "bold red" if device.lost else "bold cyan")
    heading = Text.assemble(name, (f"  {len(device.rows)} tags" + (f", {more} more not shown" if more else ""), "dim"), no_wrap=True)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(ratio=1, no_wrap=True)
    for width, side in WIDTHS:
        table.add_column(width=width, justify=side, no_wrap=True)
    for row in device.rows[:shown]:
        style, old = ("red" if row.quality else "green"), ("yellow" if row.age_s > STALE_S else "dim")
        value = Text(row.value, "red" if row.quality else "")
        table.add_row(f" {row.tag}", value, Text(row.unit, "dim"), Text(row.quality or "good", style), Text(age(row.age_s), old))
    return heading, table


def _account(view: View, width: int) -> Panel:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=8, style="bold", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    scanning, account, far = view.scanning, view.account, view.far
    late = f"p99 late < {scanning.late_p99_s * 1000:.0f} ms" if math.isfinite(scanning.late_p99_s) else "p99 late > 5 s"
    table.add_row("scans", f"{scanning.per_s:.1f}/s, {scanning.values_per_s:.0f} values/s, {late}, missed {scanning.missed}")
    table.add_row("uplink", _uplink(view, width))
    table.add_row("ledger", _ledger(view, width))
    table.add_row(
        "consumer", f"received {far.received:,}, duplicate {far.duplicate:,}, missing {far.missing:,}, marks checked {far.marks:,}"
    )
    good = account.lost == 0 and account.balances and (far.missing == 0 or is_under_way(view))
    table.add_row("verdict", Text.assemble((verdict(view), "bold green" if good else "bold red"), "   ", (view.phase, "bold yellow")))
    return Panel(table, box=box.ROUNDED, padding=(0, 1), title=f"journal {size(view.journal_bytes)}", title_align="right")


def _uplink(view: View, width: int) -> Text:
    state = Text(view.uplink, "green" if view.uplink == "up" else "bold red")
    bars = Text(spark(view.pending, max(8, width - 62)), "yellow")
    return Text.assemble(state, f", lag {age(view.lag_s)}, pending ", f"{view.account.pending:,} ", bars)


def _ledger(view: View, width: int) -> Text:
    one = view.account
    sign = (" = ", "green") if one.balances else (" ≠ ", "bold red")
    if width < NARROW:
        rest = f"acked {one.acknowledged} + pending {one.pending} + dropped {one.dropped} + quarantined {one.quarantined}"
        return Text.assemble(str(one.appended), sign, rest)
    rest = f"acknowledged {one.acknowledged:,} + pending {one.pending:,} + dropped {one.dropped:,} + quarantined {one.quarantined:,}"
    return Text.assemble(f"appended {one.appended:,}", sign, rest)


def line(view: View) -> str:
    """The same moment in one line, for where there is no terminal."""
    one, far = view.account, view.far
    parts = (
        _clock(view.elapsed_s),
        f"{view.scanning.values_per_s:.0f} values/s",
        f"broker {'up' if view.broker.up else 'DOWN'}",
        f"appended {one.appended} = acknowledged {one.acknowledged} + pending {one.pending} "
        f"+ dropped {one.dropped} + quarantined {one.quarantined}",
        f"consumer received {far.received}, duplicate {far.duplicate}, missing {far.missing}",
        view.phase,
    )
    return "  ".join(part for part in parts if part)
