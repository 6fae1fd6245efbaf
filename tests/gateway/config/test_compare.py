"""What a reload has to do is exactly what differs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.config import Change, Parts, Site, compare, load
from gateway.config.drivers import Drivers
from gateway.config.faces import ModbusFace

PLANT = Path(__file__).with_name("plant.yaml")


def site_of(drivers: Drivers, right: str = "", wrong: str = "") -> Site:
    text = PLANT.read_text()
    assert right in text
    site, problems = load((text.replace(right, wrong) if right else text).encode(), drivers=drivers)
    assert not problems
    assert site is not None
    return site


def test_a_site_does_not_differ_from_itself_read_again(drivers: Drivers) -> None:
    change = compare(site_of(drivers), site_of(drivers))
    assert change.nothing
    assert change == Change(Parts(unchanged=("boiler-house", "meters")), Parts(unchanged=("cloud", "historian")), Parts(), ())


def test_one_changed_tag_changes_only_its_connection(drivers: Drivers) -> None:
    change = compare(site_of(drivers), site_of(drivers, "deadband: 0.05", "deadband: 0.1"))
    assert change.connections == Parts(unchanged=("meters",), changed=("boiler-house",))
    assert change.uplinks.unchanged == ("cloud", "historian")
    assert not change.nothing


def test_a_renamed_connection_is_one_removed_and_one_added(drivers: Drivers) -> None:
    change = compare(site_of(drivers), site_of(drivers, "name: meters", "name: meter-house"))
    assert change.connections == Parts(unchanged=("boiler-house",), added=("meter-house",), removed=("meters",))


def test_the_order_of_connections_does_not_matter(drivers: Drivers) -> None:
    site = site_of(drivers)
    assert compare(site, msgspec.structs.replace(site, connections=site.connections[::-1], uplinks=site.uplinks[::-1])).nothing


def test_a_new_name_of_the_gateway_changes_every_uplink_and_no_connection(drivers: Drivers) -> None:
    change = compare(site_of(drivers), site_of(drivers, "name: gw-01", "name: gw-02"))
    assert change.sections == ("gateway",)
    assert change.uplinks == Parts(changed=("cloud", "historian"))
    assert change.connections.changed == ()


def test_other_sections_are_named(drivers: Drivers) -> None:
    change = compare(site_of(drivers), site_of(drivers, "commit_window_ms: 100", "commit_window_ms: 50"))
    assert change.sections == ("journal",)
    assert change.uplinks.unchanged == ("cloud", "historian")
    assert not change.nothing


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("deadband: 0.05", "deadband: 0.1"), ("name: meters", "name: meter-house"), ("name: gw-01", "name: gw-02")],
)
def test_a_face_begins_anew_where_what_it_shows_has_changed(drivers: Drivers, right: str, wrong: str) -> None:
    face = ModbusFace(name="scada")
    before, after = (msgspec.structs.replace(site_of(drivers, *each), faces=(face,)) for each in ((), (right, wrong)))
    assert compare(before, after).faces == Parts(changed=("scada",))
    assert compare(before, before).faces == Parts(unchanged=("scada",))
