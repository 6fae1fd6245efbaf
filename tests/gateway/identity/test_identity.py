"""The service itself: what is held in memory is what is true, also when things happen at once or the disk refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.audit import Audit
from gateway.identity.console import SHELL
from gateway.identity.identity import MIGRATIONS, Identity, Shown
from gateway.identity.principal import Role
from gateway.objections import Conflict, NotThere, Unavailable, Unknown
from gateway.state import State
from protocols.clock import ManualClock
from tests.gateway.identity.rig import OTHER, PASSWORD

DAY_NS = 86400 * 10**9


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def state(tmp_path: Path, clock: ManualClock) -> AsyncIterator[State]:
    opened = await State.open(tmp_path, [MIGRATIONS], clock)
    yield opened
    await opened.close()


@pytest.fixture
def identity(state: State, clock: ManualClock) -> Identity:
    return Identity(state, clock, Audit(clock))


def bearer(secret: str) -> Shown:
    return Shown(address="192.0.2.1", authorization=f"Bearer {secret}")


async def test_a_request_costs_no_disk(identity: Identity, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither with a token that is good nor with one that is made up."""
    secret = await identity.issue_token("ci", Role.VIEWER, lifetime_s=60, made_by="test")
    assert await identity.principal(bearer(secret))
    await identity.close()
    asked: list[object] = []
    monkeypatch.setattr(state, "do", asked.append)
    for _ in range(100):
        principal = await identity.principal(bearer(secret))
        assert principal is not None
        assert principal.called == "token:ci"
        with pytest.raises(Unknown):
            await identity.principal(bearer("hft_" + "x" * 43))
    assert not asked


async def test_when_a_token_was_last_used_is_kept_coarsely(identity: Identity, state: State, clock: ManualClock) -> None:
    secret = await identity.issue_token("ci", Role.VIEWER, lifetime_s=10**6, made_by="test")
    first = clock.time_ns()
    for _ in range(3):
        await identity.principal(bearer(secret))
        await clock.advance(60)
    await identity.close()
    (row,) = await state.do(lambda db: list(db.table("token").rows))
    assert row["used_ns"] == first
    assert identity.tokens.used_ns("ci") == first + 120 * 10**9


@pytest.mark.parametrize(
    "shown", ["Basic YTpi", "Bearer", "Bearer ", "bearer hft_x", "Bearer hfs_x", "Bearer " + "x" * 5000, "Bearer \x00", "hft_x"]
)
async def test_what_proves_nothing_is_nobody(identity: Identity, shown: str) -> None:
    with pytest.raises(Unknown):
        await identity.principal(Shown(address="192.0.2.1", authorization=shown))


async def test_of_two_administrators_who_demote_each_other_at_once_one_stays(identity: Identity) -> None:
    await identity.open()
    for name in ("anna", "otto"):
        await identity.accounts.add_user(SHELL, name, PASSWORD, Role.ADMINISTRATOR)
    changes = [identity.accounts.change_user(SHELL, name, role=Role.VIEWER) for name in ("anna", "otto")]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(answer, Conflict) for answer in answers) == 1
    assert identity.users.ruled


async def test_of_two_who_claim_at_once_one_is_first(identity: Identity) -> None:
    await identity.open()
    code = identity.claims.make()
    claims = [identity.claim(code, name, PASSWORD, f"192.0.2.{at}") for at, name in enumerate(("anna", "eve"))]
    answers = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(isinstance(answer, tuple) for answer in answers) == 1
    assert len(identity.users.all()) == 1


async def test_a_sign_in_under_way_does_not_outlive_a_change(identity: Identity) -> None:
    """The password is being checked while an administrator shuts the user out."""
    await identity.open()
    await identity.accounts.add_user(SHELL, "otto", PASSWORD, Role.VIEWER)
    trying = asyncio.create_task(identity.sign_in("otto", PASSWORD, "192.0.2.1"))
    await asyncio.sleep(0)
    await identity.accounts.change_user(SHELL, "otto", disabled=True)
    with pytest.raises(Unknown):
        await trying
    assert not identity.sessions.all()


async def test_where_the_disk_refuses_nothing_is_said_to_be_done(identity: Identity, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    await identity.open()
    await identity.accounts.add_user(SHELL, "otto", PASSWORD, Role.VIEWER)
    secret = await identity.issue_token("ci", Role.VIEWER, lifetime_s=60, made_by="test")

    async def refuse(_: object) -> None:
        raise Unavailable("the disk says no")

    monkeypatch.setattr(state, "do", refuse)
    with pytest.raises(Unavailable):
        await identity.accounts.add_user(SHELL, "eve", PASSWORD, Role.VIEWER)
    with pytest.raises(Unavailable):
        await identity.accounts.set_password(SHELL, "otto", OTHER)
    assert identity.users.find("eve") is None
    await identity.sign_in("otto", PASSWORD, "192.0.2.1")
    with pytest.raises(Unavailable):
        await identity.accounts.revoke_token(SHELL, "ci")
    with pytest.raises(Unknown):  # what was to be revoked opens nothing, whatever the disk says
        await identity.principal(bearer(secret))


async def test_a_claim_that_the_disk_refuses_can_be_made_again(identity: Identity, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    await identity.open()
    code = identity.claims.make()

    async def refuse(_: object) -> None:
        raise Unavailable("the disk says no")

    with monkeypatch.context() as broken:
        broken.setattr(state, "do", refuse)
        with pytest.raises(Unavailable):
            await identity.claim(code, "anna", PASSWORD, "192.0.2.1")
    await identity.claim(code, "anna", PASSWORD, "192.0.2.1")


async def test_a_certificate_opens_what_was_granted_until_it_is_revoked(identity: Identity, state: State, clock: ManualClock) -> None:
    await identity.open()
    shown = Shown(address="192.0.2.1", certificate=b"der of a certificate")
    with pytest.raises(Unknown):
        await identity.principal(shown)
    granted = await identity.certificates.grant(
        b"der of a certificate", "scada", Role.OPERATOR, "builder", clock.time_ns() + DAY_NS, "test"
    )
    found = await identity.principal(shown)
    assert found is not None
    assert (found.called, found.role, found.tenant) == ("certificate:scada", Role.OPERATOR, "builder")
    again = Identity(state, clock, Audit(clock))
    assert await again.principal(shown) == found
    await identity.certificates.revoke(granted.fingerprint)
    await identity.certificates.revoke(granted.fingerprint)
    for each in (identity, Identity(state, clock, Audit(clock))):
        with pytest.raises(Unknown):
            await each.principal(shown)
    await identity.certificates.grant(b"der of a certificate", "scada", Role.OPERATOR, "", clock.time_ns() + DAY_NS, "test")
    with pytest.raises(Unknown):
        await identity.principal(shown)
    with pytest.raises(NotThere):
        await identity.certificates.revoke("0" * 64)


async def test_a_certificate_that_has_expired_opens_nothing(identity: Identity, clock: ManualClock) -> None:
    await identity.open()
    await identity.certificates.grant(b"der", "scada", Role.VIEWER, "", clock.time_ns() + DAY_NS, "test")
    await clock.advance(86401)
    with pytest.raises(Unknown):
        await identity.principal(Shown(address="192.0.2.1", certificate=b"der"))


async def test_sessions_are_bounded_and_the_idlest_gives_way(identity: Identity, clock: ManualClock) -> None:
    await identity.open()
    user = await identity.accounts.add_user(SHELL, "otto", PASSWORD, Role.VIEWER)
    secrets = []
    for _ in range(25):
        secret, _session = identity.begin_session(user.principal, "password", "192.0.2.1")
        secrets.append(secret)
        await clock.advance(1)
    assert len(identity.sessions.all()) == 20
    assert [identity.sessions.find(secret) is not None for secret in secrets] == [False] * 5 + [True] * 20
