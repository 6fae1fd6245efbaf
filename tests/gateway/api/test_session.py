"""Signing in and out over the wire: the claim of a new gateway, sessions and when they end, guessing, pages of other origins."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog

from gateway.identity import attempts, questions
from gateway.identity.principal import Role
from tests.gateway.api.conftest import Running
from tests.gateway.identity.rig import OTHER, PASSWORD, Ahead, add, at_the_console, bare, sign_in, sign_in_by_cookie

CLAIM = {"name": "anna", "password": PASSWORD}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def ahead() -> Ahead:
    return Ahead()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, ahead: Ahead) -> AsyncIterator[Running]:
    async with bare(tmp_path_factory.mktemp("session"), ahead) as running:
        await add(running, "anna", Role.ADMINISTRATOR)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def one(shared: Running, ahead: Ahead) -> Running:
    """A gateway with the users anna (administrator) and otto (operator), a day after whatever the test before did."""
    ahead.by_s += 86400
    if any(user["name"] == "otto" for user in await at_the_console(shared, questions.ListUsers())):
        await at_the_console(shared, questions.RemoveUser(name="otto"))
    await add(shared, "otto", Role.OPERATOR)
    return shared


async def entries(one: Running, action: str) -> list[tuple[str, str, str]]:
    """Who, outcome and detail of the audit entries of ``action``, over the API."""
    anna = await sign_in(one, "anna")
    found = (await anna.get("/api/v1/audit", params={"limit": 500})).json()["items"]
    return [(each["who"], each["outcome"], each["detail"]) for each in found if each["action"] == action]


async def try_in(one: Running, name: str, password: str) -> httpx.Response:
    return await one.client().post("/api/v1/session", json={"name": name, "password": password})


# N1: no default credential


async def test_a_new_gateway_is_claimed_once_with_the_code_that_it_says_in_its_log(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as log:
        async with bare(tmp_path) as new:
            (said,) = [each["code"] for each in log if each["event"] == "claim_code"]
            nobody = new.client()
            assert (await nobody.get("/api/v1/users")).status_code == 401
            assert (await nobody.post("/api/v1/claim", json={**CLAIM, "code": "0000-0000-0000-0000"})).status_code == 403
            claimed = await nobody.post("/api/v1/claim", json={**CLAIM, "code": said.lower().replace("-", " ")})
            assert claimed.status_code == 201
            anna = new.client(claimed.json()["token"])
            assert (await anna.get("/api/v1/session")).json()["role"] == "administrator"
            again = await nobody.post("/api/v1/claim", json={**CLAIM, "name": "eve", "code": said})
            assert again.status_code == 409
            assert ("", "refused", "wrong code") in await entries(new, "claim")
            assert ("user:anna", "done", "") in await entries(new, "claim")
    with structlog.testing.capture_logs() as log:
        async with bare(tmp_path):
            assert not [each for each in log if each["event"] == "claim_code"]


async def test_nobody_guesses_the_claim_code(tmp_path: Path) -> None:
    """After a few attempts no code is good, not even the right one; a shell on the gateway makes another."""
    with structlog.testing.capture_logs() as log:
        async with bare(tmp_path) as new:
            (said,) = [each["code"] for each in log if each["event"] == "claim_code"]
            answers = [await new.client().post("/api/v1/claim", json={**CLAIM, "code": "1111"}) for _ in range(12)]
            assert {answer.status_code for answer in answers} <= {403, 429}
            assert (await new.client().post("/api/v1/claim", json={**CLAIM, "code": said})).status_code in (403, 429)
            (told,) = await at_the_console(new, questions.MakeClaim())
            assert re.fullmatch(r"([0-9A-Z]{4}-){3}[0-9A-Z]{4}", told["code"])
            assert told["code"] != said


async def test_a_claim_code_is_good_for_an_hour(tmp_path: Path, ahead: Ahead) -> None:
    async with bare(tmp_path, ahead) as new:
        (told,) = await at_the_console(new, questions.MakeClaim())
        ahead.by_s += 3601
        assert (await new.client().post("/api/v1/claim", json={**CLAIM, "code": told["code"]})).status_code == 403


async def test_a_claim_that_is_refused_for_its_password_may_be_made_again(tmp_path: Path) -> None:
    async with bare(tmp_path) as new:
        (told,) = await at_the_console(new, questions.MakeClaim())
        refused = await new.client().post("/api/v1/claim", json={**CLAIM, "code": told["code"], "password": "anna"})
        assert refused.status_code == 400
        assert refused.json()["problems"]
        assert (await new.client().post("/api/v1/claim", json={**CLAIM, "code": told["code"]})).status_code == 201


async def test_two_gateways_share_no_secret(tmp_path: Path) -> None:
    """N3: codes, keys of the authority, certificates and tokens of two new gateways all differ."""
    held: list[set[Any]] = []
    for name in ("one", "two"):
        async with bare(tmp_path / name) as new:
            (told,) = await at_the_console(new, questions.MakeClaim())
            (token,) = await at_the_console(new, questions.IssueToken(name="ci", role=Role.VIEWER))
            folder = tmp_path / name / "journal" / "state" / "authority"
            files = [file.read_bytes() for file in folder.iterdir() if file.is_file()]
            blocks = {block for content in files for block in content.split(b"-----END") if b"BEGIN" in block}
            held.append({told["code"], token["token"], *blocks})
    assert len(held[0]) > 5
    assert not held[0] & held[1]


# N5: a session ends


async def test_a_session_ends_when_its_user_signs_out(one: Running) -> None:
    otto = await sign_in(one, "otto")
    assert (await otto.get("/api/v1/gateway")).status_code == 200
    assert (await otto.delete("/api/v1/session")).status_code == 204
    assert (await otto.get("/api/v1/gateway")).status_code == 401


async def test_a_session_ends_when_nobody_uses_it_and_when_it_is_too_old(one: Running, ahead: Ahead) -> None:
    otto = await sign_in(one, "otto")
    ahead.by_s += 1799
    assert (await otto.get("/api/v1/gateway")).status_code == 200
    ahead.by_s += 1801
    assert (await otto.get("/api/v1/gateway")).status_code == 401
    busy = await sign_in(one, "otto")
    for _ in range(25):
        ahead.by_s += 1700
        last = await busy.get("/api/v1/gateway")
    assert last.status_code == 200
    ahead.by_s += 1000
    assert (await busy.get("/api/v1/gateway")).status_code == 401


@pytest.mark.parametrize("what", ["role", "tenant", "disabled", "password", "deleted", "ended"])
async def test_whatever_changes_what_a_user_may_ends_their_sessions(one: Running, what: str) -> None:
    anna, otto = await sign_in(one, "anna"), await sign_in(one, "otto")
    change = {"role": {"role": "viewer"}, "tenant": {"tenant": "builder"}, "disabled": {"disabled": True}}
    if what in change:
        answer = await anna.patch("/api/v1/users/otto", json=change[what])
    elif what == "password":
        answer = await anna.put("/api/v1/users/otto/password", json={"password": OTHER})
    else:
        answer = await anna.delete("/api/v1/users/otto" + ("/sessions" if what == "ended" else ""))
    assert answer.is_success, answer.text
    assert (await otto.get("/api/v1/gateway")).status_code == 401
    assert (await anna.get("/api/v1/gateway")).status_code == 200


async def test_a_user_changes_the_own_password_and_other_sessions_end(one: Running) -> None:
    here, there = await sign_in(one, "otto"), await sign_in(one, "otto")
    wrong = await here.put("/api/v1/session/password", json={"old": OTHER, "new": OTHER})
    assert wrong.status_code == 403
    assert (await here.put("/api/v1/session/password", json={"old": PASSWORD, "new": OTHER})).status_code == 204
    assert [(await each.get("/api/v1/gateway")).status_code for each in (here, there)] == [200, 401]
    assert (await try_in(one, "otto", PASSWORD)).status_code == 401
    await sign_in(one, "otto", OTHER)


async def test_one_sees_and_ends_ones_own_sessions_and_nobody_elses(one: Running) -> None:
    anna, otto = await sign_in(one, "anna"), await sign_in(one, "otto")
    hers = (await anna.get("/api/v1/sessions")).json()["items"]
    his = (await otto.get("/api/v1/sessions")).json()["items"]
    assert [each["user"] for each in his] == ["otto"]
    assert (await otto.delete(f"/api/v1/sessions/{hers[0]['id']}")).status_code == 404
    assert (await otto.get("/api/v1/users/anna/sessions")).status_code == 403
    assert (await anna.get("/api/v1/users/otto/sessions")).json()["items"] == [{**his[0], "left_s": pytest.approx(1800, abs=20)}]
    assert (await anna.delete(f"/api/v1/sessions/{his[0]['id']}")).status_code == 204
    assert (await otto.get("/api/v1/gateway")).status_code == 401


# N4: guessing


async def test_who_guesses_is_locked_out_and_told_nothing(one: Running, ahead: Ahead) -> None:
    """The same answers for a user that is and one that is not; the right password does not help while one waits."""
    answers: dict[str, list[httpx.Response]] = {"otto": [], "nobody": []}
    for name, got in answers.items():
        got += [await try_in(one, name, f"a guess that is wrong {number}") for number in range(attempts.PAIR.free + 1)]
    told = {name: [(each.status_code, each.json()) for each in got] for name, got in answers.items()}
    assert told["otto"] == told["nobody"]
    assert [status for status, _ in told["otto"]] == [401] * attempts.PAIR.free + [429]
    assert int(answers["otto"][-1].headers["retry-after"]) >= 1
    assert (await try_in(one, "otto", PASSWORD)).status_code == 429
    assert ("", "done", "") in await entries(one, "lock_out")
    assert ("user:otto", "refused", "wrong password") in await entries(one, "sign_in")
    ahead.by_s += 2
    await sign_in(one, "otto")


async def test_each_attempt_too_many_doubles_the_wait(one: Running, ahead: Ahead) -> None:
    waits: list[int] = []
    for _ in range(attempts.PAIR.free + 4):
        answer = await try_in(one, "otto", OTHER)
        if len(waits) and waits[-1]:
            assert answer.status_code == 401
        blocked = await try_in(one, "otto", OTHER)
        waits.append(int(blocked.headers.get("retry-after", 0)) if blocked.status_code == 429 else 0)
        ahead.by_s += waits[-1] + 0.1
    assert [wait for wait in waits if wait][:4] == [1, 2, 4, 8]


async def test_an_administrator_unlocks_a_user(one: Running) -> None:
    for number in range(attempts.PAIR.free + 1):
        await try_in(one, "otto", f"a guess that is wrong {number}")
    anna = await sign_in(one, "anna")
    assert (await anna.get("/api/v1/users/otto")).json()["locked"]
    assert (await anna.post("/api/v1/users/otto/unlock")).json()["locked"] is False
    await sign_in(one, "otto")


async def test_whoever_is_shut_out_learns_nothing_by_the_right_password(one: Running) -> None:
    anna = await sign_in(one, "anna")
    await anna.patch("/api/v1/users/otto", json={"disabled": True})
    right, wrong = await try_in(one, "otto", PASSWORD), await try_in(one, "otto", OTHER)
    assert (right.status_code, right.json()) == (wrong.status_code, wrong.json()) == (401, wrong.json())


# Cookies and pages of other origins


async def test_a_browser_gets_a_cookie_that_no_script_and_no_other_page_can_use(one: Running) -> None:
    answer = await one.client().post(
        "/api/v1/session", json={"name": "otto", "password": PASSWORD, "form": "cookie"}, headers={"X-Holdfast": "1"}
    )
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-holdfast_session=hfs_")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie
    assert answer.json()["token"] is None


async def test_a_page_of_another_origin_changes_nothing_with_the_cookie(one: Running) -> None:
    browser = await sign_in_by_cookie(one, "otto")
    body = {"old": PASSWORD, "new": OTHER}
    for headers in ({}, {"Origin": "https://evil.example.com"}, {"Origin": "https://localhost:1", "X-Holdfast": "1"}, {"Origin": "null"}):
        refused = await browser.put("/api/v1/session/password", json=body, headers=headers)
        assert refused.status_code == 403, headers
    assert (await browser.get("/api/v1/gateway")).status_code == 200
    assert (await browser.put("/api/v1/session/password", json=body, headers={"Origin": one.url})).status_code == 204
    assert (await browser.delete("/api/v1/session", headers={"X-Holdfast": "1"})).status_code == 204
    assert (await browser.get("/api/v1/gateway")).status_code == 401


async def test_no_page_of_another_origin_signs_somebody_in(one: Running) -> None:
    body = {"name": "otto", "password": PASSWORD, "form": "cookie"}
    refused = await one.client().post("/api/v1/session", json=body, headers={"Origin": "https://evil.example.com"})
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers


async def test_a_stale_cookie_does_not_help_a_wrong_token(one: Running) -> None:
    browser = await sign_in_by_cookie(one, "otto")
    assert (await browser.get("/api/v1/gateway", headers={"Authorization": "Bearer hft_forged"})).status_code == 401


async def test_no_answer_or_file_holds_a_secret(one: Running) -> None:
    """Neither a password nor what opens anything lies on the disk."""
    anna = await sign_in(one, "anna")
    made = (await anna.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})).json()
    secrets = [PASSWORD, made["secret"], anna.headers["authorization"].removeprefix("Bearer ")]
    everything = b"".join(file.read_bytes() for file in one.appliance.state.folder.parent.rglob("*") if file.is_file())
    assert not [secret for secret in secrets if secret.encode() in everything]
    shown = (await anna.get("/api/v1/users")).text + (await anna.get("/api/v1/tokens")).text + (await anna.get("/api/v1/audit")).text
    assert not [secret for secret in [*secrets, "argon2"] if secret in shown]
