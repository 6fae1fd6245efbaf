"""How often somebody may try: each count for itself, and what strangers can do to a user."""

from __future__ import annotations

import pytest

from gateway.identity.attempts import ADDRESS, MOST_KEPT, PAIR, USER, Attempts, place
from gateway.objections import TooMany
from protocols.clock import ManualClock


def waits(attempts: Attempts, name: str, address: str) -> float:
    """What an attempt has to wait; 0 if it was taken."""
    try:
        attempts.take(name, address)
    except TooMany as objection:
        return objection.retry_after_s
    return 0.0


async def test_the_wait_doubles_up_to_its_longest() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    found = []
    for _ in range(PAIR.free + 14):
        attempts.take("anna", "192.0.2.1")
        found.append(waits(attempts, "anna", "192.0.2.1"))
        await clock.advance(found[-1])
    assert [wait for wait in found if wait][:5] == [1, 2, 4, 8, 16]
    assert found[-1] == PAIR.longest_s


async def test_a_stranger_does_not_shut_a_user_out() -> None:
    """Who guesses from one address is locked out there; the user gets in from another."""
    attempts = Attempts(ManualClock())
    while not waits(attempts, "anna", "192.0.2.66"):
        pass
    assert waits(attempts, "anna", "192.0.2.1") == 0


async def test_who_owns_many_addresses_guesses_slowly() -> None:
    attempts = Attempts(ManualClock())
    tried = 0
    while not waits(attempts, "anna", f"192.0.2.{tried}"):
        tried += 1
    assert tried <= USER.free + 1
    assert attempts.locked("anna")


async def test_who_tries_many_names_is_locked_out_too() -> None:
    attempts = Attempts(ManualClock())
    tried = 0
    while not waits(attempts, f"user{tried}", "192.0.2.66"):
        tried += 1
    assert tried <= ADDRESS.free + 1
    assert waits(attempts, "anna", "192.0.2.1") == 0


async def test_success_forgets_the_users_failures_and_not_the_addresss() -> None:
    """Whoever has one account cannot guess another's for ever by signing in between."""
    attempts = Attempts(ManualClock())
    tried = 0
    while True:
        if waits(attempts, "victim", "192.0.2.66"):
            break
        tried += 1
        if waits(attempts, "own", "192.0.2.66"):
            break
        attempts.succeeded("own", "192.0.2.66")
    assert tried <= ADDRESS.free + 1


async def test_what_nobody_adds_to_is_forgotten() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    for _ in range(PAIR.free):
        attempts.take("anna", "192.0.2.1")
    await clock.advance(3601 + 1)
    assert [waits(attempts, "anna", "192.0.2.1") for _ in range(PAIR.free)] == [0] * PAIR.free


def test_memory_is_bounded() -> None:
    attempts = Attempts(ManualClock())
    for number in range(MOST_KEPT):
        waits(attempts, f"u{number}", f"198.51.{number // 250}.{number % 250}")
    assert len(attempts._counts) <= MOST_KEPT


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_of_ipv6_the_network_counts(one: str, other: str, same: bool) -> None:
    assert (place(one) == place(other)) is same
