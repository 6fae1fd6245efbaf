"""The live table fits the terminal, and keeps what matters when room is short."""

from __future__ import annotations

import pytest
from rich.console import Console

from gateway.demo.table import fill, line, render, share_out
from gateway.demo.view import Account, Broker, DeviceView, Far, Row, Scanning, View


def plant(devices: int = 5, tags: int = 20) -> View:
    rows = tuple(Row(f"tag/{n}", f"{n}.5", "bar", "no answer" if n == 1 else "", n * 1.0) for n in range(tags))
    return View(
        gateway="plant-7/gw-demo",
        elapsed_s=75.0,
        broker=Broker("mosquitto", up=False),
        devices=tuple(DeviceView(f"device-{n}", rows) for n in range(devices)),
        scanning=Scanning(1200, 0, 8.0, 166.0, 0.002),
        uplink="waiting",
        lag_s=12.0,
        account=Account(1_234_567, 1_230_000, 4_567, 0, 0),
        far=Far(1_230_000, 9_000_000, 12, 0, 120),
        pending=tuple(range(60)),
        phase="broker cut, back in 12 s",
    )


def shown(view: View, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(render(view, width, height))
    return captured.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 40), (200, 50), (80, 60)])
def test_it_fits(width: int, height: int) -> None:
    """No line is wider, and there are no more lines than the terminal has."""
    screen = shown(plant(), width, height)
    assert len(screen) <= height
    assert max(map(len, screen)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_account_and_the_verdict_are_always_whole(width: int, height: int) -> None:
    """However little room there is, the ledger, the consumer and the verdict are readable to their last digit."""
    text = "\n".join(shown(plant(), width, height)).replace(",", "")
    for part in ("1234567", "1230000", "pending 4567", "dropped 0", "quarantined 0", "missing 0", "lost 0", "mosquitto DOWN", "01:15"):
        assert part in text


def test_bad_quality_is_said_in_place_of_good() -> None:
    """A value of bad quality shows which, the others show good."""
    screen = "\n".join(shown(plant(devices=1), 100, 40))
    assert "no answer" in screen
    assert screen.count(" good ") == 19


def test_every_tag_is_shown_or_counted() -> None:
    """What does not fit is said as a number."""
    assert any("20 tags, 18 more not shown" in one for one in shown(plant(), 80, 24))


@pytest.mark.parametrize(
    ("sizes", "room", "shares"),
    [((5, 5), 4, [2, 2]), ((1, 9), 6, [1, 5]), ((2, 2), 10, [2, 2]), ((3, 3, 3), 4, [2, 1, 1]), ((), 4, []), ((4,), -2, [0])],
)
def test_room_is_shared_fairly(sizes: tuple[int, ...], room: int, shares: list[int]) -> None:
    """Each device gets its share, and what one does not need goes to the others."""
    assert share_out(sizes, room) == shares


def test_no_device_is_forgotten_by_the_columns() -> None:
    """Every device stands in exactly one column, in order."""
    devices = plant(devices=7).devices
    for columns in (1, 2, 3, 5):
        packed = fill(devices, columns, 30)
        assert [device.name for group in packed for device, _ in group] == [device.name for device in devices]
        assert len(packed) <= columns


def test_without_a_terminal_a_line_tells_the_same() -> None:
    """The plain line has the ledger, the consumer and the phase."""
    said = line(plant())
    for part in ("broker DOWN", "appended 1234567", "pending 4567", "missing 0", "broker cut, back in 12 s"):
        assert part in said
