"""The OpenAPI 3.1 document: what Litestar knows of the operations, made exact.

Litestar's own schemas say less than what is enforced (unknown keys, ``oneOf`` where a whole number is a number too), so the
schemas are msgspec's, which decodes by the very same annotations. Added are what an operation needs (``x-holdfast-permission``,
``x-holdfast-reach``), the media type of problems, the headers that every write takes, and an example for each body: made from
the examples of the Structs' fields. Pure but for asking Litestar.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Litestar, Response
from litestar.handlers.http_handlers import HTTPRouteHandler

from gateway.api.examples import example_of
from gateway.api.operation import PROBLEMS, Reach
from gateway.api.problems import MEDIA_TYPE
from holdfast.shapes.common import ProblemDetails

Json = dict[str, Any]  # Any: JSON
METHODS: Final = ("get", "post", "put", "patch", "delete")
REF: Final = "#/components/schemas/"
_TEMPLATE: Final = REF + "{name}"

IF_MATCH: Final[Json] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "ETag of the state on which this was decided; 412 where it has changed since.",
    "schema": {"type": "string"},
}
IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own: the same request with the same key is carried out once, and answered the same for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
}


def document(app: Litestar) -> Json:
    """The OpenAPI document of ``app``."""
    made: Json = copy.deepcopy(app.openapi_schema.to_schema())
    schemas = _Schemas(made.setdefault("components", {}).setdefault("schemas", {}))
    for path, method, said in operations(made):
        handler = handler_of(app, path, method)
        _exact(said, handler, schemas)
        _needs(said, handler)
        _problems(said)
    made["components"]["schemas"] = schemas.used_in(made["paths"])
    made = _renamed(made)
    _anew(made["paths"])
    _gathered(made)
    for _, _, said in operations(made):
        _with_examples(said, made["components"]["schemas"])
    return made


def operations(made: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method and operation, sorted."""
    for path, item in sorted(made["paths"].items()):
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


class _Schemas:
    """Schemas by name: msgspec's where it has one for what a handler takes or gives, else Litestar's."""

    def __init__(self, theirs: Json) -> None:
        self._theirs = theirs
        self._ours: Json = {}
        self._known: dict[Any, Json] = {}  # Any: a type

    def of(self, form: Any) -> Json:  # Any: a type
        if form not in self._known:
            (self._known[form],), components = msgspec.json.schema_components([form], ref_template=_TEMPLATE)
            self._ours |= components
        return copy.deepcopy(self._known[form])

    def used_in(self, part: Any) -> Json:  # Any: JSON
        """Those that ``part`` names, and those that these name."""
        used: Json = {}
        left = _refs(part)
        while left:
            name = left.pop()
            if name not in used:
                used[name] = self._ours.get(name, self._theirs.get(name))
                left |= _refs(used[name])
        return dict(sorted(used.items()))


def _refs(part: Any) -> set[str]:  # Any: JSON
    if isinstance(part, dict):
        own = {ref.removeprefix(REF)} if isinstance(ref := part.get("$ref"), str) and ref.startswith(REF) else set()
        return own.union(*map(_refs, part.values()))
    return set().union(*map(_refs, part)) if isinstance(part, list) else set()


def handler_of(app: Litestar, path: str, method: str) -> HTTPRouteHandler:
    """The handler of an operation of ``app``."""
    for route in app.routes:
        if getattr(route, "path_format", "") == path:
            for handler in getattr(route, "route_handlers", ()):
                if method.upper() in handler.http_methods:
                    found: HTTPRouteHandler = handler
                    return found
    raise LookupError(f"{method} {path} has no handler")


def _exact(said: Json, handler: HTTPRouteHandler, schemas: _Schemas) -> None:
    """msgspec's schemas for the body and the answer, where they are JSON."""
    data = handler.parsed_data_field
    for kind, content in said.get("requestBody", {}).get("content", {}).items():
        if data is not None and kind == "application/json":
            content["schema"] = schemas.of(data.raw if _is_annotated(data.raw) else data.annotation)
    given = _given(handler.parsed_return_field.annotation)
    content = said["responses"].get(str(handler.status_code), {}).get("content", {}).get("application/json")
    if content is not None and given is not None and _is_shape(given):
        content["schema"] = schemas.of(given)
    for status, spec in (handler.responses or {}).items():
        body = said["responses"].get(str(status), {}).get("content", {}).get("application/json")
        if body is not None and _is_shape(spec.data_container):
            body["schema"] = schemas.of(spec.data_container)


def _is_annotated(form: Any) -> bool:  # Any: a type
    return typing.get_origin(form) is Annotated


def _given(form: Any) -> Any:  # Any: a type
    """What a handler gives, out of its ``Response[...]``."""
    origin = typing.get_origin(form)
    return typing.get_args(form)[0] if isinstance(origin, type) and issubclass(origin, Response) else form


def _is_shape(form: Any) -> bool:  # Any: a type
    bare = typing.get_origin(form) or form
    return isinstance(bare, type) and issubclass(bare, msgspec.Struct | list | dict | tuple)


def _needs(said: Json, handler: HTTPRouteHandler) -> None:
    opt = handler.opt
    given = said["responses"].get(str(handler.status_code), {}).get("content", {})
    given |= {kind: copy.deepcopy(content) for content in list(given.values())[:1] for kind in opt.get("also_given", ())}
    said["x-holdfast-reach"] = str(opt.get("reach", Reach.GATEWAY))
    if (permission := opt.get("permission")) is not None:
        said["x-holdfast-permission"] = str(permission)
    if "description" not in said:
        said["description"] = said.get("summary", "") + "."
    if opt.get("idempotency"):
        said.setdefault("parameters", []).append(copy.deepcopy(IDEMPOTENCY_KEY))
    if "412" in said["responses"] and not any(one["name"].lower() == "if-match" for one in said.get("parameters", [])):
        said.setdefault("parameters", []).append(copy.deepcopy(IF_MATCH))


def _problems(said: Json) -> None:
    """Every answer of 400 and above is problem details, unless it says otherwise itself."""
    for status, answer in said["responses"].items():
        if int(status) >= 400 and list(answer.get("content", {})) in ([], ["application/json"]):
            schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
            if not schema or schema.get("$ref", "").endswith(ProblemDetails.__name__):
                answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": REF + ProblemDetails.__name__}}}
                answer["description"] = answer.get("description") or PROBLEMS.get(int(status), "")


def _gathered(made: Json) -> None:
    """Answers that many operations have in common stand in one place."""
    common: Json = {}
    for _, _, said in operations(made):
        for status, answer in said["responses"].items():
            name = HTTPStatus(int(status)).name.title().replace("_", "")
            if list(answer.get("content", {})) == [MEDIA_TYPE] and common.setdefault(name, answer) == answer:
                said["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    made["components"]["responses"] = dict(sorted(common.items()))


def _renamed(part: Any) -> Any:  # Any: JSON
    """Names of schemas as people would give them: ``DevicePage`` for ``Page[Device]``."""
    if isinstance(part, dict):
        return {_page_name(key) if key.startswith("Page_") else key: _renamed(each) for key, each in part.items()}
    if isinstance(part, list):
        return [_renamed(each) for each in part]
    return REF + _page_name(part.removeprefix(REF)) if isinstance(part, str) and part.startswith(REF + "Page_") else part


def _page_name(name: str) -> str:
    return name.removeprefix("Page_").rstrip("_").rpartition(".")[2] + "Page"


def _anew(part: Any) -> None:  # Any: JSON
    """What Litestar says too narrowly, or not as JSON Schema means it, in parameters: a whole number is a number too."""
    if isinstance(part, dict):
        if "oneOf" in part:
            part["anyOf"] = part.pop("oneOf")
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(part.get(key), float) and part[key].is_integer():
                part[key] = int(part[key])
        for key in ("allowEmptyValue", "allowReserved", "deprecated"):
            if part.get(key) is False:
                del part[key]
        if part.get("headers") == {}:
            del part["headers"]
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _anew(each)


def _with_examples(said: Json, schemas: Json) -> None:
    bodies = [said.get("requestBody", {}), *(answer for status, answer in said["responses"].items() if status.startswith("2"))]
    for body in bodies:
        for kind, content in body.get("content", {}).items():
            if kind == "application/json" and "example" not in content and "examples" not in content:
                content["example"] = example_of(content.get("schema", {}), schemas)
