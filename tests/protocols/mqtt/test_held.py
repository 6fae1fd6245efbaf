"""What is held back from the broker, and for how long."""

from __future__ import annotations

from protocols.mqtt.client import Message
from protocols.mqtt.held import FEW, Held


def message(number: int) -> Message:
    return Message("a", b"", 1, False, number=number)


def numbers(messages: list[Message]) -> list[int]:
    return [one.number for one in messages]


def test_each_message_is_held_for_its_time_and_given_in_order() -> None:
    held = Held(0.5, 100)
    assert [held.take(message(number), number * 0.1) for number in range(3)] == [[], [], []]
    assert numbers(held.due(0.55)) == [0]
    assert numbers(held.due(0.75)) == [1, 2]
    assert not held


def test_above_the_limit_the_oldest_is_given_at_once() -> None:
    held = Held(10, 2)
    assert [numbers(held.take(message(number), 0.0)) for number in range(4)] == [[], [], [0], [1]]


def test_a_burst_that_ended_is_given_when_it_is_durable_and_nothing_is_concluded() -> None:
    held = Held(10, 1000)
    for burst in range(10):
        for number in range(50):
            held.take(message(number), burst * 1.0)
        assert held.due(burst + 0.1) == []
        assert len(held.due(burst + 0.2)) == 50
    assert held.most == 1000


def test_a_broker_that_sends_as_soon_as_it_is_answered_gets_its_answers_at_once() -> None:
    held, now = Held(10, 1000), 0.0
    for _ in range(4):
        for number in range(20):
            held.take(message(number), now)
        now += 0.2
        held.due(now)
    assert held.most == FEW
    assert len([one for number in range(20) for one in held.take(message(number), now)]) >= 10
