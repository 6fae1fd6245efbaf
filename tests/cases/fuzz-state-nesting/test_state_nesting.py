"""See README.md."""

from __future__ import annotations

from pathlib import Path

from protocols.sparkplug.host import PrimaryHost, Word


def test_a_state_of_endless_brackets_is_ignored() -> None:
    host = PrimaryHost("scada")
    assert host.take(host.topic, b'{"online":true,"timestamp":1}') is Word.ONLINE
    assert host.take(host.topic, Path(__file__).with_name("state.json").read_bytes()) is Word.IGNORED
    assert host.online
