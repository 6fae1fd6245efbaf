"""Writes the operations of ``holdfast.client`` from the API's own declarations, or says that they are not what those give.

``python tools/client.py`` writes ``holdfast/client/asks.py`` (each operation as a function) and ``operations.py`` (the table that makes
them methods of both clients); ``--check`` only compares. What an operation takes and gives are the very Structs of its handler.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union

import msgspec

from gateway.api.app import BASE, unserved
from gateway.api.document import document, handler_of, operations
from gateway.config.__main__ import differing, write

FOLDER: Final = Path(__file__).parents[1] / "holdfast/client"
NOT_METHODS: Final = {"follow_live_events"}
"""What the client has in a better form: ``follow``, over WebSocket."""
SHAPES: Final = "holdfast.shapes"
Json = dict[str, Any]  # Any: JSON
_BUILTIN: Final[dict[str, str]] = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}


class Imports:
    """Names of shapes that the written code uses; where two modules have the same name, the second is called after its module."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], str] = {}

    def name(self, form: type) -> str:
        key = (form.__module__, form.__name__)
        if key not in self.found:
            taken = form.__name__ in self.found.values()
            self.found[key] = form.__module__.rpartition(".")[2].capitalize() + form.__name__ if taken else form.__name__
        return self.found[key]

    def lines(self) -> Iterator[str]:
        for module in sorted({module for module, _ in self.found}):
            names = (
                name if alias == name else f"{name} as {alias}" for (where, name), alias in sorted(self.found.items()) if where == module
            )
            yield f"from {module} import {', '.join(names)}"


def asks(made: Json) -> str:
    """The module of functions."""
    imports = Imports()
    functions = [_function(said, path, method, imports) for path, method, said in _wanted(made)]
    head = [
        '"""Each operation of the API as a function that says what to ask. Made from the API by ``python tools/client.py``."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any, Literal",
        "",
        "from holdfast.client.ask import Ask, Download, ask, download",
        *imports.lines(),
    ]
    return "\n".join([*head, "", "", "\n\n\n".join(functions), ""])


def table(made: Json) -> str:
    """The module of the table."""
    rows = [f"    {said['operationId']} = {_kind(said)}(asks.{said['operationId']})" for _, _, said in _wanted(made)]
    head = [
        '"""The table of operations that both clients have as methods. Made from the API by ``python tools/client.py``."""',
        "",
        "from __future__ import annotations",
        "",
        "from holdfast.client import asks",
        "from holdfast.client.ask import Export, Operation",
        "",
        "",
        "class Operations:",
        '    """One method for each operation of the API, called as its operation id."""',
        "",
        *rows,
        "",
    ]
    return "\n".join(head)


def _wanted(made: Json) -> Iterator[tuple[str, str, Json]]:
    yield from (each for each in operations(made) if each[2]["operationId"] not in NOT_METHODS)


def _kind(said: Json) -> str:
    return "Export" if _is_export(said) else "Operation"


def _is_export(said: Json) -> bool:
    kinds = {kind for status, answer in said["responses"].items() if status.startswith("2") for kind in answer.get("content", {})}
    return bool(kinds) and "application/json" not in kinds


def _function(said: Json, path: str, method: str, imports: Imports) -> str:
    handler = handler_of(APP, path, method)
    export = _is_export(said)
    result = "bytes" if export else _form(handler.parsed_return_field.annotation, imports)
    parts = re.findall(r"{(\w+)}", path)
    query = [one for one in said.get("parameters", []) if one["in"] == "query"]
    positional = [f"{_python(part)}: {_schema_form(_of_part(said, part))}" for part in parts]
    body, content_type = _body(said, handler, imports)
    positional += [f"body: {body}"] if body else []
    named = sorted((_parameter(one) for one in query), key=lambda each: "=" in each)
    headers = {one["name"].lower() for one in said.get("parameters", []) if one["in"] == "header"}
    named += ["if_match: str | None = None"] if "if-match" in headers else []
    named += ["idempotency_key: str | None = None"] if "idempotency-key" in headers else []
    signature = ", ".join([*positional, *(["*", *named] if named else [])])
    given = [repr(method.upper()), repr(re.sub(r"{\w+}", "{}", path)), *([] if export else [result])]
    given += [_python(part) for part in parts]
    given += ["query={" + ", ".join(f"{one['name']!r}: {_python(one['name'])}" for one in query) + "}"] if query else []
    given += ["body=body"] if body else []
    given += [f"content_type={content_type!r}"] if content_type else []
    given += ["if_match=if_match"] if "if-match" in headers else []
    given += ["idempotency_key=idempotency_key, keyed=True"] if "idempotency-key" in headers else []
    name, kind = said["operationId"], "Download" if export else f"Ask[{result}]"
    text = f"{said['summary']}.\n\n{said['description']}" if said["description"].rstrip(".") != said["summary"] else f"{said['summary']}."
    told = textwrap.indent("\n".join(textwrap.fill(" ".join(each.split()), 130) for each in text.split("\n\n")), "    ")
    told = told.replace("\n", "\n\n", 1) if "\n" in told else told
    end = '"""' if "\n" not in told else '\n    """'
    return (
        f'def {name}({signature}) -> {kind}:\n    """{told.strip()}{end}\n    return {"download" if export else "ask"}({", ".join(given)})'
    )


def _python(name: str) -> str:
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _of_part(said: Json, part: str) -> Json:
    return next((one["schema"] for one in said.get("parameters", []) if one["in"] == "path" and one["name"] == part), {"type": "string"})


def _parameter(one: Json) -> str:
    form = _schema_form(one["schema"])
    name = _python(one["name"])
    return f"{name}: {form}" if one.get("required") else f"{name}: {form.removesuffix(' | None')} | None = None"


def _schema_form(schema: Json) -> str:
    """The Python type of a parameter."""
    if "$ref" in schema:
        return _schema_form(MADE["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return f"Literal[{', '.join(repr(each) for each in schema['enum'] if each is not None)}]"
    if "anyOf" in schema:
        forms = dict.fromkeys(map(_schema_form, schema["anyOf"]))
        return " | ".join(sorted(forms, key=lambda form: form == "None"))
    kind = schema.get("type")
    if kind == "array":
        return f"list[{_schema_form(schema.get('items', {'type': 'string'}))}]"
    return "None" if kind == "null" else _BUILTIN.get(str(kind), "str")


def _body(said: Json, handler: Any, imports: Imports) -> tuple[str, str]:  # Any: Litestar's own
    """The type of the body and, where it is not JSON, its media type; empty where there is none."""
    content = said.get("requestBody", {}).get("content", {})
    if not content:
        return "", ""
    data = handler.parsed_data_field
    if data is not None and "application/json" in content and (form := _form(data.annotation, imports)) not in ("bytes", "Any"):
        return form, ""
    return "bytes", next(iter(content))


def _form(form: Any, imports: Imports) -> str:  # Any: a type
    """A type as it is written."""
    origin, arguments = typing.get_origin(form), typing.get_args(form)
    if origin is Annotated:
        return _form(arguments[0], imports)
    if origin in (Union, types.UnionType):
        return " | ".join(_form(each, imports) for each in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if form is None or form is type(None):
        return "None"
    if origin is not None:
        inner = ", ".join(_form(each, imports) for each in arguments)
        return inner if origin.__name__ == "Response" else f"{_form(origin, imports)}[{inner}]"
    if isinstance(form, type) and issubclass(form, msgspec.Struct) and form.__module__.startswith(SHAPES):
        return imports.name(form)
    return form.__name__ if isinstance(form, type) and form.__module__ == "builtins" else "Any"


def pages() -> dict[str, str]:
    """File name to text, as ruff has it."""
    return {name: _tidy(name, text) for name, text in {"asks.py": asks(MADE), "operations.py": table(MADE)}.items()}


def _tidy(name: str, text: str) -> str:
    for command in (["check", "--fix-only", "--quiet", "--select", "I,F401"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(FOLDER / name), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, timeout=60).stdout
    return text


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        old = differing(FOLDER, pages())
        sys.stderr.writelines(f"holdfast/client/{name} is not what the API gives: run make docs and commit it\n" for name in old)
        return 1 if old else 0
    write(FOLDER, pages())
    return 0


APP: Final = unserved()
MADE: Final = document(APP)

if __name__ == "__main__":
    assert all(path.startswith(BASE) or path.count("/") == 1 for path in MADE["paths"])
    sys.exit(main(sys.argv[1:]))
