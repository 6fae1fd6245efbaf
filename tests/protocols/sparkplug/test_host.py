"""The primary host's newest word counts, and only its own."""

from __future__ import annotations

import pytest

from protocols.sparkplug.host import PrimaryHost, Word

TOPIC = "spBv1.0/STATE/scada-1"


def state(online: object, timestamp: object) -> bytes:
    return f'{{"online": {str(online).lower()}, "timestamp": {timestamp}}}'.encode()


def test_nothing_is_known_before_the_host_speaks() -> None:
    assert PrimaryHost("scada-1").online is None


def test_the_first_word_counts_whatever_its_time() -> None:
    assert PrimaryHost("scada-1").take(TOPIC, state(True, 5)) is Word.ONLINE
    assert PrimaryHost("scada-1").take(TOPIC, state(False, 0)) is Word.OFFLINE


def test_an_older_word_is_ignored_and_one_of_the_same_time_counts() -> None:
    host = PrimaryHost("scada-1")
    host.take(TOPIC, state(True, 1000))
    assert host.take(TOPIC, state(False, 999)) is Word.IGNORED
    assert host.online is True
    assert host.take(TOPIC, state(False, 1000)) is Word.OFFLINE
    assert host.take(TOPIC, state(True, 999)) is Word.IGNORED
    assert host.online is False


def test_a_new_connection_forgets_the_word_but_not_its_time() -> None:
    host = PrimaryHost("scada-1")
    host.connected("one")
    host.take(TOPIC, state(True, 1000))
    host.connected("one")
    assert host.online is None
    assert host.take(TOPIC, state(True, 999)) is Word.IGNORED


def test_times_are_compared_for_each_broker_alone() -> None:
    host = PrimaryHost("scada-1")
    host.connected("one")
    host.take(TOPIC, state(False, 1000))
    host.connected("two")
    assert host.take(TOPIC, state(True, 10)) is Word.ONLINE


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"ONLINE",
        b"{}",
        b'{"online": "yes"}',
        b'{"online": true, "timestamp": "x"}',
        b"\xff",
        b"[" * 5000,
        state(True, 1) + b" " * 5000,
    ],
)
def test_rubbish_is_ignored(payload: bytes) -> None:
    host = PrimaryHost("scada-1")
    assert host.take(TOPIC, payload) is Word.IGNORED
    assert host.online is None


def test_another_host_is_ignored() -> None:
    assert PrimaryHost("scada-1").take("spBv1.0/STATE/scada-2", state(True, 1)) is Word.IGNORED
