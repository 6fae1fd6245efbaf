"""The line console at a real terminal, signed in to a real gateway with meters of libmodbus behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from gateway.identity.principal import Role
from tests.gateway.api.conftest import DEADLINE_S, Running, gateway, plant, server, site_of, until
from tests.gateway.identity.rig import add, sign_in
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.tui.person import PROMPT, Person, person

__all__ = ["plant", "server"]


async def sessions(chief: httpx.AsyncClient, name: str) -> list[Any]:  # Any: JSON
    listed: list[Any] = (await chief.get(f"/api/v1/users/{name}/sessions")).json()["items"]
    return listed


async def signed_out(chief: httpx.AsyncClient, name: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await sessions(chief, name):  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.05)


async def test_a_technician_finds_out_writes_and_leaves(plant: Running, server: LibmodbusServer) -> None:
    """Sign in at the second try, look, write with a yes and without, watch, sign out: each as the meter and the gateway have it."""
    await add(plant, "tina", Role.TECHNICIAN)
    chief = await plant.as_role(Role.ADMINISTRATOR)
    async with person(plant) as tina:
        await tina.sees("User: ")
        await tina.say("tina", "Password: ")
        assert "do not fit" in await tina.say("not her password", "User: ")
        await tina.say("tina", "Password: ")
        began = await tina.say("nine yellow boats at dawn")
        assert all(said in began for said in ("tina, technician", "plant/edge", "2 of 2 answer", "every record is accounted for"))
        assert "nine yellow boats" not in tina.seen
        assert "231" not in (shown := await tina.say("device meter-1"))
        assert "230.5 V" in shown
        assert "may be written" in await tina.say("value meter-1 setpoint")
        assert "meter-1" not in (await tina.say("devices 2")).splitlines()[2]

        await tina.say("write meter-1 setpoint 21 new recipe", "7 -> 21. Type yes: ")
        assert "nothing was sent" in await tina.say("y")
        assert await server.get(1, "holding", 10) == [7]
        await tina.say("write meter-1 setpoint 21 new recipe", "Type yes: ")
        assert "it was read back, and is 21" in await tina.say("yes")
        assert await server.get(1, "holding", 10) == [21]
        await server.clamp(1, 10, 10, 50)
        await tina.say("write meter-1 setpoint 80", "Type yes: ")
        assert "MISMATCH: the device took it, and reads 50 now" in await tina.say("yes")
        assert "read only: nothing was sent" in await tina.say("write meter-1 voltage 1")
        assert "is no number" in await tina.say("write meter-1 setpoint much")

        tina.type("watch meter-1 voltage\n")
        await tina.sees("230.5 V")
        await server.set(1, "holding", 0, *registers("f", 241.25))
        await tina.sees("241.25 V")
        tina.type("\x03")
        await tina.sees(PROMPT)
        assert "verified" in await tina.say("commands")
        assert len(await sessions(chief, "tina")) == 1
        tina.type("quit\n")
        assert await tina.ends() == 0
        assert await sessions(chief, "tina") == []
    recorded = (await chief.get("/api/v1/commands")).json()["items"]
    assert ("user:tina", "new recipe") in {(one["source"].split(", ")[-1], one["reason"]) for one in recorded}


async def test_no_key_and_no_word_leads_to_anything_but_the_console(plant: Running, tmp_path: Path) -> None:
    """Suspend, quit, redirect, run: the console stays, alone, and Ctrl-D signs out. What a role may not do is said in a sentence."""
    await add(plant, "vera", Role.VIEWER)
    chief, made = await plant.as_role(Role.ADMINISTRATOR), tmp_path / "made"
    async with person(plant) as vera:
        await vera.signs_in("vera")
        for keys in ("\x1a", "\x1c", "\x03", "\x18\x12"):
            vera.type(keys)
            if keys == "\x03":
                await vera.sees(PROMPT)
            assert "vera (user), viewer" in await vera.say("who")
        for line in ("!sh", "sh", f"status > {made}", "shell", "$(id)", "`id`", "; id", "| sh", "/bin/sh", ":!id", "~.", "help !sh"):
            said = await vera.say(line)
            assert "there is no word" in said or "it is: status" in said, said
        assert "a quote is open" in await vera.say("write 'x")
        assert "500 characters at most" in await vera.say("x" * 600)
        forbidden = await vera.say("write meter-1 setpoint 9")
        assert "'write' is not for you: it needs the permission 'command', which viewer 'vera' does not have" in forbidden.replace(
            "\n", " "
        )
        vera.type("/etc/pass\t\t~roo\t\x1b&\x15")
        assert "there is no word" not in await vera.say("who")
        assert "passwd" not in vera.seen
        assert (told(vera, f"task/{vera.process.pid}/children"), made.exists()) == ("", False)
        assert told(vera, "stat").rpartition(")")[2].split()[0] in "SR", "it is not suspended"
        vera.type("\x04")
        assert await vera.ends() == 0
        assert await sessions(chief, "vera") == []
        assert not (await chief.get("/api/v1/commands")).json()["items"]


def told(one: Person, what: str) -> str:
    """What the kernel says of the console's process."""
    return Path(f"/proc/{one.process.pid}/{what}").read_text()


async def test_who_goes_away_is_signed_out(plant: Running) -> None:
    """A cable that is pulled, a person who types nothing: the session ends at the gateway."""
    for name in ("tina", "otto"):
        await add(plant, name, Role.TECHNICIAN)
    chief = await plant.as_role(Role.ADMINISTRATOR)
    async with person(plant) as tina, person(plant, "--idle-s", "2") as otto:
        await asyncio.gather(tina.signs_in("tina"), otto.signs_in("otto"))
        tina.hangs_up()
        assert await tina.ends() == 129
        await otto.sees("nobody has typed for a while")
        assert await otto.ends() == 0
    await signed_out(chief, "tina")
    await signed_out(chief, "otto")


async def test_a_token_enters_and_stays_and_an_ended_session_asks_anew(plant: Running) -> None:
    token = await plant.token(Role.TECHNICIAN)
    await add(plant, "tina", Role.TECHNICIAN)
    chief = await plant.as_role(Role.ADMINISTRATOR)
    async with person(plant) as tina:
        await tina.signs_in("", token)
        assert (await plant.client(token).get("/api/v1/session")).status_code == 200
        tina.type("\x04")
        await tina.ends()
    assert (await plant.client(token).get("/api/v1/session")).status_code == 200, "it is not the console's to revoke"
    assert token not in tina.seen
    async with person(plant) as tina:
        await tina.signs_in("tina")
        await chief.delete("/api/v1/users/tina/sessions")
        await tina.say("status", "User: ")
        assert "sign in again" in tina.seen


async def test_a_fault_is_looked_at_and_its_fix_pressed(plant: Running, server: LibmodbusServer) -> None:
    """A machine is locked out, a value is desired meanwhile; whoever worked there lifts the lock-out and presses the fix."""
    await add(plant, "tina", Role.TECHNICIAN)
    api = await sign_in(plant, "tina")
    async with person(plant) as tina:
        await tina.signs_in("tina")
        assert "device:meter-1 is locked out" in await tina.say("lock-out device meter-1 the belt is open")
        await api.patch("/api/v1/devices/meter-1/shadow", json={"desired": {"setpoint": 90}})
        async with asyncio.timeout(DEADLINE_S):
            while not (line := fault(await tina.say("repairs"), "refused")):  # noqa: ASYNC110 - the list comes by itself
                await asyncio.sleep(0.1)
        await tina.say("lift device:meter-1", "Type yes: ")
        assert "open again" in await tina.say("yes")
        seen = await tina.say(f"repair {line}", "Type yes: ")
        assert "advice" in seen
        assert "the belt is open" in " ".join(seen.split())
        assert "done" in await tina.say("yes")
    async with asyncio.timeout(DEADLINE_S):
        while await server.get(1, "holding", 10) != [90]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


def fault(listed: str, holds: str) -> str:
    """The number of the fault with a fix to press."""
    return next((line.split()[0] for line in listed.splitlines() if " yes " in line and line.split()[0].isdecimal()), "")


HOSTILE = "a zone\x9b31m\u202eevil"


async def test_a_terminal_is_sent_nothing_that_it_would_obey(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Names and reasons full of escape sequences, and a list that is longer than the screen: it is shown by the console itself."""
    site = site_of(server, free_port())
    tags = site["connections"][0]["devices"][0]["tags"]
    tags += [{**tags[1], "name": HOSTILE, "unit": "°C\x9b31m"}, *({**tags[0], "name": f"zone/{number}"} for number in range(60))]
    async with gateway(json.loads(json.dumps(site)), tmp_path) as one:
        await add(one, "tina", Role.TECHNICIAN)
        await until("meter-1 is read", lambda: any(device.name == "meter-1" for device in one.appliance.latest.devices()))
        api = await sign_in(one, "tina")
        why = "\x1b]0;owned\x07\x1b[2J\rall is well\n> "
        assert (await api.post("/api/v1/lock-outs", json={"scope": "gateway", "why": why})).status_code < 300
        async with person(one, columns=60) as tina:
            await tina.signs_in("tina")
            assert "\\x1b]0;owned\\x07\\x1b[2J" in await tina.say("lock-outs")
            first = await tina.say("device meter-1", "-- Enter: more, q: enough -- ")
            assert "zone/9" not in first
            await tina.say("", "-- Enter: more, q: enough -- ")
            assert "zone/9" not in await tina.say("q")
            await tina.say(f"write meter-1 '{HOSTILE}' 9", "Type yes: ")
            assert "nothing was sent" in await tina.say("no")
            tina.type("value meter-1 vol\t")
            assert "230.5 V" in await tina.say("")
            assert_harmless(tina)
            assert "a zone\\x9b31m\\u202eevil" in tina.seen
        async with person(one, "--ascii") as tina:
            await tina.signs_in("tina")
            await tina.say("device meter-1", "-- Enter: more, q: enough -- ")
            await tina.say("q")
            assert "7 deg C\\x9b31m" in tina.seen
            assert tina.seen.isascii()


def assert_harmless(one: Person) -> None:
    """Nothing was sent but what prints, line ends, and bell and backspace of the line's editor; what was typed comes back as it was."""
    sent = one.seen.replace(f"write meter-1 '{HOSTILE}' 9", "")
    assert {character for character in sent if not character.isprintable()} <= set("\n\r\x07\x08"), ascii(sent)


async def test_a_gateway_that_is_away_or_another_is_said(plant: Running, tmp_path: Path) -> None:
    async with person(plant, "--url", "https://localhost:1") as away:
        await away.sees("User: ")
        await away.say("tina", "Password: ")
        assert "the gateway does not answer" in await away.say("x", "User: ")
    async with person(plant, "--ca", "/etc/ssl/certs/ca-certificates.crt") as wary:
        await wary.sees("User: ")
        await wary.say("tina", "Password: ")
        assert "certificate" in await wary.say("nine yellow boats at dawn", "User: ")
    async with person(plant, "--ca", str(tmp_path / "none.pem")) as early:
        await early.sees("cannot be read")
        assert await early.ends() == 2
