"""A document that is wrong in its shape is judged all the same: the errors of its sound parts come with the others."""

from __future__ import annotations

import pytest

from gateway.config import load
from gateway.config.document import Path
from gateway.config.drivers import Drivers
from gateway.config.sound import Sound, entry_around

WRONG = """\
holdfast: 1
gateway: {group: plant/7, name: gw-01}
connections:
  - name: a
    type: modbus-tcp
    host: h
    prot: 502
    devices:
      - {name: d, slave: 1}
      - name: d
        tags:
          - {name: t, at: 5, kind: bool}
          - {name: u, at: "coil:1", kind: bool}
          - {name: u, at: "holding:99999", kind: bool}
  - {name: b, type: modbus-tcp}
  - {name: a, type: modbus-tcp, host: i}
uplinks:
  - {name: x, type: mqtt, host: h, hots: i, topic: "{nothing}"}
  - {name: x, type: mqtt, host: 5}
  - {name: x, type: mqtt, host: j}
"""


def test_errors_of_shape_and_of_sense_come_together_each_with_its_line(drivers: Drivers) -> None:
    site, problems = load(WRONG.encode(), drivers=drivers)
    assert site is None
    assert [(getattr(one, "line", 0), one.path) for one in problems] == [
        (2, "gateway.group"),
        (7, "connections[0].prot"),
        (9, "connections[0].devices[0].slave"),
        (10, "connections[0].devices[1].name"),
        (12, "connections[0].devices[1].tags[0].at"),
        (14, "connections[0].devices[1].tags[2].at"),
        (14, "connections[0].devices[1].tags[2].name"),
        (15, "connections[1].host"),
        (16, "connections[2].name"),
        (18, "uplinks[0].hots"),
        (18, "uplinks[0].topic"),
        (19, "uplinks[1].host"),
        (20, "uplinks[2].name"),
    ]
    messages = {one.path: one.message for one in problems}
    assert messages["connections[0].devices[1].tags[2].name"].endswith("the first is connections[0].devices[1].tags[1]")
    assert messages["uplinks[2].name"].endswith("the first is uplinks[0]")
    assert all(one.severity == "error" for one in problems)


def tags(count: int) -> str:
    return ", ".join(f"{{name: t{at}, at: 'holding:{at}', kind: float32}}" for at in range(count))


BUDGET = "holdfast: 1\ngateway: {{group: g, name: n}}\njournal: {{max_bytes: 20000000{journal}}}\nconnections:\n" \
    "  - {{name: a, type: modbus-tcp, host: h, devices: [{{name: d, tags: [{tags}]{device}}}]}}\nuplinks: [{uplink}]\n"  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "judged"),
    [({"uplink": "5"}, True), ({"journal": ", max_age: 5"}, False), ({"device": ", scan: 60"}, False)],
)
def test_the_budget_is_judged_only_where_what_it_rests_on_is_sound(wrong: dict[str, str], judged: bool, drivers: Drivers) -> None:
    text = BUDGET.format(**({"journal": "", "device": "", "uplink": "", "tags": tags(100)} | wrong))
    _, problems = load(text.encode(), drivers=drivers)
    assert len(problems) == (2 if judged else 1)
    assert ("journal.max_bytes" in [one.path for one in problems]) is judged


def test_places_lead_back_to_the_document() -> None:
    sound = Sound({"a": [{"b": [0, 1, 2, 3]}, "x", {"b": [0, 1]}]}, [("a", 1)], whole=[("a", 0, "b", 0), ("a", 0, "b", 2)])
    assert sound.value["a"] == [{"b": [1, 3]}, {"b": [0, 1]}]
    assert sound.place(("a", 0, "b", 1)) == ("a", 0, "b", 3)
    assert sound.place(("a", 1, "b", 1, "c")) == ("a", 2, "b", 1, "c")
    assert sound.text("as a[1].b[0], and b[1] of it", ("a", 0, "b", 0)) == "as a[2].b[0], and b[3] of it"


@pytest.mark.parametrize(
    ("path", "entry"),
    [(("journal", "path"), ("journal",)), (("a", 0, "b", 1, "c", "d"), ("a", 0, "b", 1)), (("a", 0), ("a", 0)), ((), ())],
)
def test_the_entry_around_a_place(path: Path, entry: Path) -> None:
    assert entry_around(path) == entry
