"""``holdfast token`` and ``holdfast user`` beside a gateway that runs, and what is wrong in a site about who may enter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway import config
from gateway.cli import main
from tests.gateway.identity.rig import OTHER, PASSWORD, bare, sign_in

SITE = {"holdfast": 1, "gateway": {"group": "plant", "name": "edge"}, "journal": {"path": "journal"}}
OIDC = {
    "issuer": "https://login.example.com",
    "client_id": "edge",
    "redirect_uri": "https://edge.example.com/api/v1/session/oidc/callback",
    "roles": [{"value": "ot", "role": "engineer"}],
}


@pytest.fixture
def holdfast(tmp_path: Path) -> Callable[..., Any]:
    """Runs a command beside the gateway in ``tmp_path``."""
    site = tmp_path / "site.yaml"
    site.write_text(json.dumps(SITE))

    async def run(group: str, command: str, *words: str, said: str = "") -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, [group, command, str(site), *words], said)

    return run


async def test_users_and_tokens_from_a_shell(tmp_path: Path, holdfast: Callable[..., Any]) -> None:
    async with bare(tmp_path) as one:
        claimed = await holdfast("user", "claim")
        assert (claimed.exit_code, len(claimed.stdout.strip())) == (0, 19)
        assert (await holdfast("user", "add", "anna", "--role", "administrator", said=PASSWORD + "\n")).exit_code == 0
        await sign_in(one, "anna")
        assert (await holdfast("user", "password", "anna", said=OTHER + "\n")).exit_code == 0
        await sign_in(one, "anna", OTHER)
        issued = await holdfast("token", "issue", "scada", "--role", "viewer", "--scope", "see-status")
        secret = issued.stdout.strip()
        assert (await one.client(secret).get("/api/v1/gateway")).status_code == 200
        listed = await holdfast("token", "list")
        assert (json.loads(listed.stdout)["id"], secret in listed.output) == ("scada", False)
        assert (await holdfast("token", "revoke", "scada")).exit_code == 0
        assert (await one.client(secret).get("/api/v1/gateway")).status_code == 401
        refused = await holdfast("user", "remove", "anna")
        assert (refused.exit_code, "last administrator" in refused.stderr) == (1, True)
        weak = await holdfast("user", "add", "otto", "--role", "viewer", said="short\n")
        assert (weak.exit_code, "12 to 128" in weak.stderr) == (1, True)
        assert (await holdfast("user", "add", "Otto", "--role", "viewer", said=PASSWORD)).exit_code == 2
        assert (await holdfast("user", "claim")).exit_code == 1
    gone = await holdfast("user", "list")
    assert (gone.exit_code, "no gateway runs" in gone.stderr) == (1, True)


@pytest.mark.parametrize(
    ("site", "path"),
    [
        ({"api": {}, "tenants": [{"name": "a", "devices": ["x"]}, {"name": "a", "devices": ["y"]}]}, "tenants[0].name"),
        ({"tenants": [{"name": "a", "devices": ["x"]}]}, "tenants"),
        ({"api": {"oidc": {**OIDC, "roles": [{"value": "x", "role": "viewer", "tenant": "gone"}]}}}, "api.oidc.roles[0].tenant"),
        ({"api": {"oidc": {**OIDC, "redirect_uri": "https://edge.example.com/"}}}, "api.oidc.redirect_uri"),
        ({"api": {"oidc": {**OIDC, "scopes": ["profile"]}}}, "api.oidc.scopes"),
        ({"api": {"oidc": {**OIDC, "issuer": "http://login.example.com"}}}, "api.oidc.issuer"),
        ({"api": {"oidc": {**OIDC, "issuer": "file:///etc/passwd"}}}, "api.oidc.issuer"),
        ({"api": {"access": {"session_idle_s": 100, "session_longest_s": 10}}}, "api.access.session_idle_s"),
        ({"api": {"limits": {"connections": 10, "connections_per_address": 11}}}, "api.limits.connections_per_address"),
    ],
)
def test_what_is_wrong_in_who_may_enter_is_said(site: dict[str, Any], path: str) -> None:
    loaded, problems = config.load(json.dumps({**SITE, **site}).encode())
    found = [*problems, *(config.check(loaded) if loaded is not None else [])]
    assert path in [problem.path for problem in found]


def test_what_is_right_is_not_accused() -> None:
    loaded, problems = config.load(json.dumps({**SITE, "api": {"oidc": OIDC}, "tenants": [{"name": "a", "devices": ["x"]}]}).encode())
    assert loaded is not None, problems
    assert not [problem for problem in config.check(loaded) if problem.path.startswith(("api", "tenants"))]
