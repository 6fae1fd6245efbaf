"""The OpenAPI document: valid, whole, with examples that fit, the same with and without a gateway, and all of it in the client."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any, Final

import jsonschema
import pytest
from click.testing import CliRunner
from schemathesis.specs.openapi.definitions import OPENAPI_31

from gateway.api.app import unserved
from gateway.api.document import document, operations
from gateway.cli import main
from gateway.identity.principal import Permission, Role
from holdfast.client import AsyncClient, Client, asks
from holdfast.client.ask import Export, Operation
from tests.gateway.api.conftest import TENANT, Running
from tests.gateway.api.judge import MADE, Op, all_operations
from tools import client as generator

OPERATIONS: Final = tuple(all_operations())
Json = dict[str, Any]  # Any: JSON
INSTEAD: Final = {"follow_live_events": "follow"}
"""What the client has in another form."""


def bodies(op: Op) -> list[tuple[str, Json]]:
    """Each JSON body of ``op``, by what it is."""
    found = [("request", op.said.get("requestBody", {}))]
    found += [(status, answer) for status, answer in op.said["responses"].items() if status.startswith("2")]
    return [(name, body["content"]["application/json"]) for name, body in found if "application/json" in body.get("content", {})]


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.id)
def test_an_operation_says_all_that_a_caller_must_know(op: Op) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", op.id)
    assert op.said["summary"]
    assert not op.said["summary"].endswith(".")
    assert op.said["description"]
    assert len(op.said["tags"]) == 1
    assert op.reach in ("gateway", "devices", "own", "public")
    assert op.reach == "public" or op.permission in set(Permission)
    wanted = {"400", "429", "503", *(("401", "403") if op.permission else ()), *(("404",) if op.parts else ())}
    assert wanted <= set(op.said["responses"])
    for status, answer in op.said["responses"].items():
        if status >= "400" and "$ref" in answer:
            named = MADE["components"]["responses"][answer["$ref"].rpartition("/")[2]]
            assert list(named["content"]) == ["application/problem+json"]
    for one in op.said.get("parameters", []):
        assert one["in"] != "query" or one.get("description") or one["schema"].get("description"), one["name"]


def test_every_operation_has_examples_that_fit() -> None:
    for op in OPERATIONS:
        for name, content in bodies(op):
            assert "example" in content, f"{op.id}: {name} has no example"
            whole = {**content["schema"], "components": MADE["components"]}
            wrong = [each.message for each in jsonschema.Draft202012Validator(whole).iter_errors(content["example"])]
            assert not wrong, (op.id, name, wrong)


def test_the_document_is_valid() -> None:
    """It fits the meta-schema of OpenAPI 3.1, each schema in it JSON Schema 2020-12, and each reference leads somewhere."""
    assert MADE["openapi"].startswith("3.1")
    wrong = [
        f"{'/'.join(map(str, each.path))}: {each.message[:200]}" for each in jsonschema.Draft202012Validator(OPENAPI_31).iter_errors(MADE)
    ]
    assert not wrong, wrong
    for name, schema in MADE["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", name), f"{name} is no name for people"
    for ref in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(MADE)):
        found: Any = MADE  # Any: JSON
        for step in ref.split("/"):
            found = found[step]
    ids = [op.id for op in OPERATIONS]
    assert len(ids) == len(set(ids))


def test_what_takes_a_body_refuses_what_it_does_not_know() -> None:
    """Unknown keys are errors, and every text and list that comes in has a bound."""
    for op in OPERATIONS:
        for name, content in bodies(op):
            if name == "request" and "$ref" in content["schema"]:
                schema = MADE["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
                assert schema.get("additionalProperties") is False, op.id
                for key, one in schema["properties"].items():
                    branches = [
                        MADE["components"]["schemas"].get(each.get("$ref", "").rpartition("/")[2], each) for each in one.get("anyOf", [one])
                    ]
                    for branch in branches:
                        bounded = "maxLength" in branch or "enum" in branch or "pattern" in branch
                        assert branch.get("type") != "string" or bounded, f"{op.id}: {key} has no bound"


def test_it_is_printed_without_a_gateway() -> None:
    printed = CliRunner().invoke(main, ["openapi"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.output) == MADE == document(unserved())


async def test_a_running_gateway_gives_the_same(plant: Running) -> None:
    for caller in (await plant.as_role(Role.VIEWER), await plant.as_role(Role.VIEWER, TENANT)):
        assert (await caller.get("/api/v1/openapi.json")).json() == MADE
    assert (await plant.client().get("/api/v1/openapi.json")).status_code == 401


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.id)
def test_both_clients_have_every_operation(op: Op) -> None:
    if op.id in INSTEAD:
        assert all(callable(getattr(kind, INSTEAD[op.id])) for kind in (Client, AsyncClient))
        return
    assert isinstance(inspect.getattr_static(Client, op.id), Operation | Export)
    taken = set(inspect.signature(getattr(asks, op.id)).parameters)
    parameters = {one["name"].lower().replace("-", "_") for one in op.said.get("parameters", []) if one["in"] != "cookie"}
    wanted = {f"{name}_" if name in ("from", "global", "in") else name for name in parameters}
    assert wanted <= {name.lower() for name in taken} | {"last_event_id"}
    assert ("body" in taken) == ("requestBody" in op.said)


def test_the_client_is_what_the_api_gives() -> None:
    """Generated equals committed; ``make docs`` writes it."""
    assert generator.main(["--check"]) == 0


def test_the_walk_sees_operations() -> None:
    assert len(list(operations(MADE))) > 60
