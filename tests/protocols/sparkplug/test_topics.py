"""Topics are built from names that were checked, and only our own namespace is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sparkplug.topics import BadName, Topic, Verb, checked, command_filters, parse, state_topic, topic

NAMES = st.text(st.characters(blacklist_characters="/+#\x00", blacklist_categories=["Cs"]), min_size=1, max_size=50)


@given(group=NAMES, node=NAMES, device=NAMES, verb=st.sampled_from(list(Verb)))
def test_a_topic_that_was_built_is_parsed_to_the_same(group: str, node: str, device: str, verb: Verb) -> None:
    said = Topic(group, verb, node, device if verb.of_device else "")
    assert parse(topic(group, verb, node, said.device)) == said


@pytest.mark.parametrize("name", ["", "a/b", "a+b", "#", "a\x00", "x" * 513])
def test_a_name_that_cannot_be_in_a_topic_is_refused_with_advice(name: str) -> None:
    with pytest.raises(BadName, match="without / \\+ #"):
        checked(name, "device")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spBv1.0",
        "spAv1.0/g/NDATA/n",
        "spBv1.0/g/NDATA",
        "spBv1.0/g/NDATA/n/d",
        "spBv1.0/g/DDATA/n",
        "spBv1.0/g/DDATA/n/d/e",
        "spBv1.0/STATE/scada",
        "spBv1.0//NDATA/n",
        "spBv1.0/g/XDATA/n",
        "spBv1.0/g/DDATA/n/" + "d" * 65_536,
    ],
)
def test_other_topics_are_not_understood(text: str) -> None:
    assert parse(text) is None


def test_an_edge_node_listens_to_its_own_commands_alone() -> None:
    assert command_filters("plant", "gw") == ("spBv1.0/plant/NCMD/gw", "spBv1.0/plant/DCMD/gw/#")
    assert state_topic("scada") == "spBv1.0/STATE/scada"
