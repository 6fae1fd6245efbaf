"""A Sparkplug edge node as its host sees it, told by another implementation of the edge node's side: our own uplink's session."""

from __future__ import annotations

from typing import Final

import numpy as np

from protocols import model
from protocols.model import Batch, Kind, Quality, Tag
from protocols.payload.edge import Edge, place_of
from protocols.sparkplug.session import EdgeNode, Publish
from tests.protocols.payload.rig import NOW_NS, Told

PLACES: Final = {"t": ("float64", "t"), "n": ("int16", "n")}


def device() -> model.Device:
    return model.Device("c", "boiler", (Tag(name="t", kind=Kind.FLOAT64), Tag(name="n", kind=Kind.INT16)))


def batch(of: model.Device, slot: int, value: float, quality: Quality = Quality.GOOD, at_ns: int = NOW_NS) -> Batch:
    kind = np.float64 if slot == 0 else np.int64
    return Batch(of, np.array([slot], np.uint32), np.array([value], kind), np.array([quality], np.uint32), np.array([at_ns], np.int64))


class Plant:
    """An edge node with one device, and a host that knows the device."""

    def __init__(self) -> None:
        self.node, self.there = EdgeNode("g", "n"), device()
        self.told = Told(PLACES, format="sparkplug")
        self.edge = Edge("g", "n", {"boiler": self.told.decoder})
        self.node.connect(1)

    def take(self, said: Publish) -> dict[str, object]:
        """Values (or qualities) by tag; ``dead`` where somebody is."""
        news = self.edge.take(said.topic, said.payload, NOW_NS)
        assert news is not None
        told: dict[str, object] = {
            self.told.device.tags[slot].name: value if quality == Quality.GOOD else Quality(quality)
            for one in news.batches
            for slot, value, quality in zip(one.tag.tolist(), one.value.tolist(), one.quality.tolist(), strict=True)
        }
        return told | ({"dead": news.dead} if news.dead else {})

    def born(self) -> None:
        assert self.take(self.node.nbirth([], NOW_NS)) == {}
        here = [batch(self.there, 0, 1.5), batch(self.there, 1, -7)]
        assert self.take(self.node.dbirth([self.there], here, NOW_NS)) == {"t": 1.5, "n": -7}

    def data(self, slot: int, value: float, quality: Quality = Quality.GOOD) -> Publish:
        template = self.node.template(self.there) or self.node.fit(self.there)
        assert template is not None
        return self.node.ddata("boiler", [template.encode(batch(self.there, slot, value, quality), historical=False)], NOW_NS, b"")

    def wants_rebirth(self) -> bool:
        return self.edge.wants_rebirth


def test_a_birth_gives_every_value_and_data_leans_on_its_aliases() -> None:
    plant = Plant()
    assert plant.wants_rebirth()
    plant.born()
    assert not plant.wants_rebirth()
    assert plant.take(plant.data(1, -3)) == {"n": -3}, "the sign stands in the birth alone"
    assert plant.take(plant.data(0, 0.0, Quality.BAD_SENSOR_FAILURE)) == {"t": Quality.BAD_SENSOR_FAILURE}
    assert not plant.wants_rebirth()


def test_a_missed_message_is_noticed() -> None:
    plant = Plant()
    plant.born()
    plant.data(1, 1)
    assert plant.take(plant.data(1, 2)) == {"n": 2}
    assert plant.wants_rebirth()


def test_data_before_a_birth_is_no_value_and_asks_for_one() -> None:
    plant = Plant()
    plant.node.nbirth([], NOW_NS)
    plant.node.dbirth([plant.there], [batch(plant.there, 0, 1.5)], NOW_NS)
    assert plant.take(plant.data(0, 9.0)) == {}
    assert plant.wants_rebirth()


def test_after_a_new_nbirth_old_aliases_mean_nothing() -> None:
    plant = Plant()
    plant.born()
    stale = plant.data(0, 9.0)
    plant.node.connect(2)
    plant.take(plant.node.nbirth([], NOW_NS))
    assert plant.take(stale) == {}
    assert plant.wants_rebirth()


def test_a_death_of_this_session_counts_and_an_old_one_does_not() -> None:
    plant = Plant()
    old = plant.node.connect(7)
    new = plant.node.connect(8)
    plant.born()
    assert plant.take(old) == {}
    assert plant.take(plant.data(0, 2.5)) == {"t": 2.5}
    assert plant.take(new) == {"dead": ("boiler",)}
    plant.node.connect(9)
    plant.born()
    assert plant.take(plant.node.ddeath("boiler", NOW_NS)) == {"dead": ("boiler",)}


def test_a_metric_that_the_birth_lacks_is_unknown() -> None:
    plant = Plant()
    told = Told({"x": ("float64", "gone")}, format="sparkplug")
    edge = Edge("g", "n", {"boiler": told.decoder})
    born = plant.node.nbirth([], NOW_NS)
    edge.take(born.topic, born.payload, NOW_NS)
    said = plant.node.dbirth([plant.there], [], NOW_NS)
    news = edge.take(said.topic, said.payload, NOW_NS)
    assert news is not None
    assert [Quality(one) for batch in news.batches for one in batch.quality] == [Quality.BAD_NODE_ID_UNKNOWN]


def test_places_are_group_node_and_device() -> None:
    assert place_of("g/n").command_topic == "spBv1.0/g/NCMD/n"
    assert place_of("g/n/d").command_topic == "spBv1.0/g/DCMD/n/d"
