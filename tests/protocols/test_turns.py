"""A line is used by one at a time, the urgent go first, and a turn that nobody uses is handed on."""

from __future__ import annotations

import asyncio

import pytest

from protocols.turns import Turns


async def use(turns: Turns, name: str, done: list[str], *, urgent: bool = False) -> None:
    if not turns.grab():
        await turns.wait(urgent=urgent)
    try:
        for _ in range(3):
            await asyncio.sleep(0)
        done.append(name)
    finally:
        turns.give_back()


async def test_the_urgent_go_first_and_the_others_in_order() -> None:
    turns = Turns()
    done: list[str] = []
    async with asyncio.TaskGroup() as group:
        for name in ("in flight", "a", "b"):
            group.create_task(use(turns, name, done))
        await asyncio.sleep(0)
        group.create_task(use(turns, "urgent", done, urgent=True))
    assert done == ["in flight", "urgent", "a", "b"]
    assert turns.grab()


@pytest.mark.parametrize("given", [False, True])
async def test_who_is_cancelled_while_waiting_stops_nobody(given: bool) -> None:
    turns = Turns()
    done: list[str] = []
    assert turns.grab()
    leaving = asyncio.ensure_future(use(turns, "leaving", done))
    staying = asyncio.ensure_future(use(turns, "staying", done))
    await asyncio.sleep(0)
    if given:
        turns.give_back()  # it is the turn of the one that leaves, and it does not know yet
    leaving.cancel()
    if not given:
        turns.give_back()
    await staying
    assert done == ["staying"]
    assert turns.grab()
