"""Passwords: kept as argon2id, checked few at a time, in the same time for nobody."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity.passwords import AT_A_TIME, MOST_WAITING, Passwords, must_be_fit
from gateway.objections import TooMany, Unfit


async def test_what_is_kept_is_argon2id_with_salt_and_fits_its_password_alone() -> None:
    passwords = Passwords()
    one, other = await passwords.digest("nine yellow boats"), await passwords.digest("nine yellow boats")
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != other
    assert await passwords.fits("nine yellow boats", one)
    assert not await passwords.fits("nine yellow boat", one)
    assert not await passwords.fits("nine yellow boats", "rubbish")


async def test_the_same_letters_are_the_same_password_on_every_keyboard() -> None:
    passwords = Passwords()
    assert await passwords.fits("Ko\u0308nigin der Nacht", await passwords.digest("K\u00f6nigin der Nacht"))


async def test_nobodys_password_never_fits() -> None:
    passwords = Passwords()
    assert not await passwords.fits("of nobody at all", None)
    assert not await passwords.fits("of nobody at all", None)


async def test_a_flood_of_sign_ins_waits_in_a_short_queue_and_takes_no_memory() -> None:
    """At most two are computed at a time; those beyond the queue are sent away at once."""
    passwords = Passwords()
    kept = await passwords.digest("nine yellow boats")
    tasks = [asyncio.create_task(passwords.fits("nine yellow boats", kept)) for _ in range(AT_A_TIME + MOST_WAITING + 5)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, TooMany) for answer in answers) == 5
    assert sum(answer is True for answer in answers) == AT_A_TIME + MOST_WAITING


@pytest.mark.parametrize("password", ["correct horse battery staple", "Anna eats twelve pears", "éèêëàâäôö üß", "x" * 100 + "abcd"])
def test_length_counts_and_composition_does_not(password: str) -> None:
    must_be_fit(password, "anna", "holdfast")


@pytest.mark.parametrize("password", ["", "short", "x" * 40, "anna-anna-anna", "holdfast2026!", "y" * 129])
def test_what_is_easily_guessed_is_refused_with_what_is_wrong(password: str) -> None:
    with pytest.raises(Unfit) as refused:
        must_be_fit(password, "anna", "holdfast")
    assert refused.value.problems[0].advice
