"""Schemathesis, written by others, judges the whole API over TLS: no server error, no ignored authentication, answers as described.

In CI each operation is asked as nobody and in the least role that may; with HOLDFAST_CAMPAIGN=long every role asks everything, with
invalid values of every kind (its phase *coverage*) and hundreds of examples an operation.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from gateway.identity.principal import LEAST_ROLE, Permission, Role
from tests.gateway.api.conftest import TENANT, Running
from tests.gateway.api.judge import MADE, Op, all_operations, judged

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG: Final = os.environ.get("HOLDFAST_CAMPAIGN") == "long"
SEED: Final = "20261121"
EXCLUDED: Final = {
    "follow_live_events": "it answers without end: tests/gateway/api/test_live.py",
    "apply_revision": "whoever may replaces the gateway that is judged, its API included: tests/gateway/api/test_revisions.py",
    "revoke_token": "whoever may ends the very token it asks with, and all that follows would be refused",
}
CHECKS: Final = (
    "not_a_server_error,ignored_auth,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)
"""Not ``positive_data_acceptance``: what fits the schema may still not fit the plant (a tag that is not there, a value out of range)."""
CALLERS: Final = ("nobody", *Role, "tenant")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with judged(tmp_path_factory.mktemp("judged")) as one:
        yield one


def asked_by(caller: str) -> list[Op]:
    """The operations that ``caller`` is to ask."""
    every = [op for op in all_operations() if op.id not in EXCLUDED]
    if LONG or caller == "nobody":
        return every
    if caller == "tenant":
        return [op for op in every if op.reach == "devices" and op.method == "get"]
    return [op for op in every if op.permission and LEAST_ROLE[Permission(op.permission)] == caller]


async def test_the_whole_api_as_each_caller(plant: Running, tmp_path: Path) -> None:
    """Two callers at a time: one for each core."""
    room = asyncio.Semaphore(2)

    async def judge(caller: str) -> None:
        async with room:
            await _judge(plant, tmp_path / caller, caller)

    found = await asyncio.gather(*map(judge, CALLERS), return_exceptions=True)
    wrong = [f"{caller}: {each}" for caller, each in zip(CALLERS, found, strict=True) if each is not None]
    assert not wrong, "\n\n".join(wrong)


async def _judge(plant: Running, folder: Path, caller: str) -> None:
    role = Role.ADMINISTRATOR if caller == "tenant" else None if caller == "nobody" else Role(caller)
    token = await plant.token(role, TENANT if caller == "tenant" else "", lifetime_s=7200) if role else ""
    operations = asked_by(caller)
    said = await schemathesis(plant, folder, token, [op.id for op in operations])
    assert f"Tested: {len(operations)}" in said, said[-2000:]
    if token:  # what was asked was asked in this role until the end
        assert (await plant.client(token).get("/api/v1/session")).status_code == 200


async def schemathesis(plant: Running, folder: Path, token: str, ids: list[str]) -> str:
    """What it says of the operations ``ids``, asked with ``token``. Fails with its report where it finds anything."""
    described = _described(folder)
    arguments = ["--url", plant.url, "--tls-verify", str(plant.appliance.authority.certificate_file), "--seed", SEED, "--no-color"]
    arguments += ["--phases", "coverage,fuzzing" if LONG else "fuzzing", "--max-examples", "300" if LONG else "1"]
    arguments += ["--checks", CHECKS, "--suppress-health-check", "all", "--generation-database", "none", "--continue-on-failure"]
    arguments += ["--request-timeout", "30", "--warnings", "off"]
    arguments += [each for id in ids for each in ("--include-operation-id", id)]
    arguments += ["--header", f"Authorization: Bearer {token}"] if token else []
    program = str(Path(sys.executable).with_name("schemathesis"))
    process = await asyncio.create_subprocess_exec(
        program, "run", str(described), *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(3600 if LONG else 120):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    report = re.sub(r"hft_[\w-]+", "TOKEN", out.decode(errors="replace"))
    assert process.returncode == 0, report[:20_000]
    return report


def _described(folder: Path) -> Path:
    folder.mkdir()
    (folder / "openapi.json").write_text(json.dumps(MADE))
    return folder / "openapi.json"


async def test_what_is_not_asked_is_there_and_has_its_reason() -> None:
    assert set(EXCLUDED) <= {op.id for op in all_operations()}
