"""A change of the API that breaks somebody is found, one that breaks nobody is not; and today's API keeps what was released."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.api.app import unserved
from gateway.api.compatibility import breaking
from gateway.api.document import document, operations
from tools import release_api as release

ROOT: Final = Path(__file__).parents[3]
RELEASED: Final = ROOT / "docs/reference/openapi.released.json"
Json = dict[str, Any]  # Any: JSON
TODAY: Final[Json] = document(unserved())


def operation(made: Json, id: str) -> Json:
    return next(said for _, _, said in operations(made) if said["operationId"] == id)


def schema(made: Json, name: str) -> Json:
    found: Json = made["components"]["schemas"][name]
    return found


def parameter(made: Json, id: str, name: str) -> Json:
    found: Json = next(one for one in operation(made, id)["parameters"] if one["name"] == name)
    return found


def _drop_operation(made: Json) -> None:
    del made["paths"]["/api/v1/gateway"]


def _drop_method(made: Json) -> None:
    del made["paths"]["/api/v1/commands"]["post"]


def _rename_operation(made: Json) -> None:
    operation(made, "get_gateway")["operationId"] = "read_gateway"


def _more_permission(made: Json) -> None:
    operation(made, "get_gateway")["x-holdfast-permission"] = "manage-users"


def _less_reach(made: Json) -> None:
    operation(made, "list_devices")["x-holdfast-reach"] = "gateway"


def _no_more_public(made: Json) -> None:
    operation(made, "get_health").update({"x-holdfast-permission": "see-status", "x-holdfast-reach": "own"})


def _drop_parameter(made: Json) -> None:
    operation(made, "list_devices")["parameters"].pop(0)


def _require_parameter(made: Json) -> None:
    parameter(made, "list_devices", "connection")["required"] = True


def _new_required_parameter(made: Json) -> None:
    operation(made, "get_gateway").setdefault("parameters", []).append({"in": "query", "name": "why", "required": True, "schema": {}})


def _narrow_parameter(made: Json) -> None:
    parameter(made, "list_devices", "limit")["schema"]["maximum"] = 10


def _default_of_parameter(made: Json) -> None:
    parameter(made, "list_devices", "limit")["schema"]["default"] = 7


def _narrow_enum_of_parameter(made: Json) -> None:
    parameter(made, "list_records", "lane")["schema"]["enum"] = ["telemetry"]


def _require_field(made: Json) -> None:
    schema(made, "NewCommand")["required"].append("reason")


def _new_required_field(made: Json) -> None:
    schema(made, "NewCommand")["properties"]["why"] = {"type": "string"}
    schema(made, "NewCommand")["required"].append("why")


def _drop_field(made: Json) -> None:
    del schema(made, "NewCommand")["properties"]["reason"]


def _retype_field(made: Json) -> None:
    schema(made, "NewCommand")["properties"]["device"] = {"type": "integer"}


def _narrow_field(made: Json) -> None:
    schema(made, "NewCommand")["properties"]["device"]["maxLength"] = 3


def _pattern(made: Json) -> None:
    schema(made, "NewCommand")["properties"]["device"]["pattern"] = "^a"


def _drop_media_type(made: Json) -> None:
    content = operation(made, "create_command")["requestBody"]["content"]
    content["application/cbor"] = content.pop("application/json")


def _drop_answer_field(made: Json) -> None:
    del schema(made, "Gateway")["properties"]["name"]


def _optional_answer_field(made: Json) -> None:
    schema(made, "Gateway")["required"].remove("name")


def _retype_answer_field(made: Json) -> None:
    schema(made, "Gateway")["properties"]["name"] = {"type": "integer"}


def _null_in_answer(made: Json) -> None:
    schema(made, "Gateway")["properties"]["name"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def _new_enum_value_in_answer(made: Json) -> None:
    state = schema(made, "Connection")["properties"]["state"]
    state["enum"] = [*state["enum"], "asleep"]


def _retype_item_of_a_page(made: Json) -> None:
    schema(made, "DevicePage")["properties"]["items"]["items"] = {"type": "string"}


def _other_status(made: Json) -> None:
    answers = operation(made, "get_gateway")["responses"]
    answers["203"] = answers.pop("200")


def _other_media_type_of_answer(made: Json) -> None:
    content = operation(made, "get_gateway")["responses"]["200"]["content"]
    content["application/xml"] = content.pop("application/json")


BREAKS: Final[tuple[Callable[[Json], None], ...]] = tuple(
    each for name, each in sorted(globals().items()) if name.startswith("_") and callable(each) and not name.startswith("__")
)


@pytest.mark.parametrize("change", BREAKS, ids=lambda each: each.__name__.strip("_"))
def test_each_kind_of_breaking_change_is_found(change: Callable[[Json], None]) -> None:
    changed = copy.deepcopy(TODAY)
    change(changed)
    assert changed != TODAY
    assert breaking(TODAY, changed)


def test_what_is_only_added_breaks_nobody() -> None:
    changed = copy.deepcopy(TODAY)
    changed["paths"]["/api/v1/new"] = {"get": {**operation(TODAY, "get_gateway"), "operationId": "get_new"}}
    operation(changed, "get_gateway").setdefault("parameters", []).append({"in": "query", "name": "why", "schema": {"type": "string"}})
    schema(changed, "Gateway")["properties"]["colour"] = {"type": "string"}
    schema(changed, "Gateway")["required"].append("colour")
    schema(changed, "NewCommand")["properties"]["colour"] = {"type": "string", "default": ""}
    parameter(changed, "list_devices", "limit")["schema"]["maximum"] = 5000
    parameter(changed, "list_records", "lane")["schema"]["enum"].append("alarms")
    operation(changed, "get_gateway")["responses"]["418"] = {"description": "a teapot"}
    operation(changed, "get_gateway")["summary"] = "said better"
    schema(changed, "Gateway")["properties"]["name"]["examples"] = ["another"]
    assert breaking(TODAY, changed) == []


def test_the_same_is_compatible() -> None:
    assert breaking(TODAY, TODAY) == []


def test_todays_api_keeps_what_was_released() -> None:
    """CI's gate. A breaking change belongs under a new version of the path; see docs/explanation/api-compatibility.md."""
    found = breaking(json.loads(RELEASED.read_text()), TODAY)
    assert not found, "\n".join(found)


def test_the_gate_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The very command that CI runs fails where the released document promises more than today's API gives."""
    promised = copy.deepcopy(TODAY)
    schema(promised, "Gateway")["properties"]["colour"] = {"type": "string"}
    schema(promised, "Gateway")["required"].append("colour")
    released = tmp_path / "openapi.released.json"
    released.write_text(json.dumps(promised))
    monkeypatch.setattr(release, "RELEASED", released)
    assert release.main(["--check"]) == 1
    assert "GET /api/v1/gateway: 200.colour: it is gone" in capsys.readouterr().err
    assert release.main([]) == 1  # nor is it released without --break
    assert json.loads(released.read_text()) == promised
