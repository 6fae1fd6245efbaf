"""Imports point one way: tui -> (HTTP) -> gateway -> protocols -> nothing of ours.

The rules are three tables, read by one pure function over the syntax tree; nothing is imported to be checked. The
checker itself is tested with small sources that break each rule, so that it cannot become green by seeing nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
OURS: Final = ("gateway", "holdfast", "protocols", "tui")
TREES: Final = (*OURS, "tests")


@dataclass(frozen=True)
class Wall:
    """Modules under ``inside`` import nothing that is under ``shut``, but for what is under ``open``."""

    inside: tuple[str, ...]
    shut: tuple[str, ...]
    open: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    """Modules under ``inside`` that this wall does not hold."""


WALLS: Final = (
    Wall(inside=("holdfast",), shut=("gateway", "protocols", "tui", "tests")),
    Wall(inside=("protocols",), shut=("gateway", "holdfast", "tui", "tests")),
    Wall(inside=("gateway",), shut=("tui", "tests")),
    Wall(inside=("gateway",), shut=("holdfast",), open=("holdfast.shapes", "holdfast.client"), but=("gateway.cli",)),
    Wall(inside=OURS, shut=("gateway.api",), open=("gateway.api.services",), but=("gateway.api", "gateway.cli")),
    Wall(inside=("tui",), shut=("gateway", "protocols", "tests")),
    Wall(inside=OURS, shut=("gateway.app",), but=("gateway.cli", "gateway.service", "gateway.demo")),
    Wall(inside=OURS, shut=("gateway.cli", "gateway.service"), but=("gateway.cli", "gateway.__main__")),
    Wall(inside=OURS, shut=("gateway.demo",), but=("gateway.cli", "gateway.demo")),
    Wall(inside=("gateway.journal",), shut=("gateway.uplink",)),
    Wall(
        inside=("gateway.pipeline",),
        shut=("gateway.uplink", "protocols"),
        open=("protocols.model", "protocols.clock", "protocols.contract"),
    ),
)

KEEPERS: Final[dict[str, tuple[str, ...]]] = {
    "pymodbus": ("protocols.modbus", "gateway.demo.plant", "tests"),
    "aiomqtt": ("protocols.mqtt", "gateway.consume", "tests"),
    "paho": ("protocols.mqtt", "gateway.consume", "tests"),
    "apsw": ("gateway.journal", "tests"),
    "amqtt": ("gateway.demo.broker", "tests"),
    "rich": ("gateway.demo", "tests"),
    "serial": ("protocols.modbus", "tests"),
    "asyncua": ("protocols.opcua", "gateway.faces.opcua", "tests"),
    "aiocoap": ("protocols.coap", "tests"),
    "aiohttp": ("protocols.http", "tests"),
    "cbor2": ("protocols.payload", "tests"),
    "jsonpath": ("protocols.payload", "tests"),
    "defusedxml": ("protocols.payload", "tests"),
    "snap7": ("protocols.s7", "tests"),
    "zeroconf": ("protocols.discover", "tests"),
    "litestar": ("gateway.api", "tests"),
    "uvicorn": ("gateway.api", "tests"),
    "strawberry": ("gateway.api", "tests"),
    "argon2": ("gateway.identity", "tests"),
    "authlib": ("gateway.identity", "tests"),
    "httpx": ("holdfast", "gateway.identity", "tests"),
    "websockets": ("holdfast", "tests"),
    "pyarrow": ("gateway.history", "tests"),
}
"""Foreign packages that one place hides, and that place."""

CLOCK: Final = "protocols.clock"
TIME_CALLS: Final = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
}
OWN_TIME: Final[dict[str, str]] = {}
"""Modules that ask the machine for the time themselves, each with its reason."""

SHARED_PROTOCOL_MODULES: Final = {
    "model",
    "outcomes",
    "steps",
    "turns",
    "contract",
    "clock",
    "schedule",
    "secret",
    "tls",
    "quiet",
    "options",
    "values",
    "payload",
    "trace",
}


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    in_function: bool


def under(module: str, roots: tuple[str, ...]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every import in ``tree``; ``from a import b`` counts as ``a`` and as ``a.b``, for ``b`` may be a module."""
    nested = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*parents, *([node.module] if node.module else [])])
            names = [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, id(node) in nested)


def asks_time(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Uses of the machine's clock, by attribute (``time.monotonic``) or by imported name (``from time import time``)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = ".".join(ast.unparse(node).split(".")[-2:])
            if name in TIME_CALLS:
                yield name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            for alias in node.names:
                if f"time.{alias.name}" in TIME_CALLS:
                    yield f"time.{alias.name}", node.lineno


def driver_folder(module: str) -> str:
    """``protocols.modbus.plan`` -> ``modbus``; empty for what all drivers share."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "protocols" and parts[1] not in SHARED_PROTOCOL_MODULES else ""


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What ``source`` breaks as ``module``; one sentence each, with its line."""
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    found = list(imports(tree, package))
    said = [
        *(sentence for each in found for sentence in _broken_walls(module, each)),
        *(
            f"line {each.line}: imports {each.module}, which only {', '.join(keepers)} may"
            for each in found
            for name, keepers in KEEPERS.items()
            if under(each.module, (name,)) and not under(module, keepers)
        ),
        *(f"line {each.line}: imports {each.module} inside a function" for each in found if each.in_function and under(each.module, TREES)),
    ]
    if under(module, OURS) and module != CLOCK and module not in OWN_TIME:
        said += [f"line {line}: {name}: ask the Clock that is handed in" for name, line in asks_time(tree)]
    return list(dict.fromkeys(said))


def _broken_walls(module: str, each: Import) -> Iterator[str]:
    for wall in WALLS:
        if (
            under(module, wall.inside)
            and not under(module, wall.but)
            and under(each.module, wall.shut)
            and not under(each.module, wall.open)
        ):
            if wall.open and each.module in {parent.rpartition(".")[0] for parent in wall.open}:
                continue  # `from protocols import model` names the parent too
            yield f"line {each.line}: imports {each.module} across a wall of {', '.join(wall.inside)}"
    mine, theirs = driver_folder(module), driver_folder(each.module)
    if mine and theirs and mine != theirs and module != each.module:
        yield f"line {each.line}: the driver {mine} imports the driver {theirs}"


def modules() -> Iterator[tuple[str, Path]]:
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*.py")):
            if "node_modules" not in path.parts:
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_imports_point_one_way() -> None:
    """No module of ours breaks a rule."""
    said = [
        f"{path.relative_to(ROOT)}: {sentence}"
        for module, path in modules()
        for sentence in violations(module, path.read_text(), is_package=path.name == "__init__.py")
    ]
    assert not said, "\n" + "\n".join(said)


def test_the_checker_sees_our_modules() -> None:
    """The checker reads the real packages, so that it is not green for want of anything to read."""
    assert {"protocols.model", "gateway.links", "tests.test_layers"} <= {module for module, _ in modules()}


def test_no_package_hides_ansible_or_molecule() -> None:
    """``ansible/`` and ``molecule/`` have no ``__init__.py``: they would shadow the installed packages."""
    assert not [path for name in ("ansible", "molecule") for path in (ROOT / name).rglob("__init__.py")]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocols.modbus.driver", "from gateway import links"),
        ("protocols.modbus.driver", "import gateway.config.model"),
        ("protocols.modbus.driver", "from protocols.opcua import driver"),
        ("protocols.modbus.driver", "from ..opcua import driver"),
        ("tui.app", "from protocols.model import Tag"),
        ("gateway.links", "import gateway.app"),
        ("gateway.links", "from gateway import app"),
        ("gateway.links", "from . import app"),
        ("gateway.links", "from gateway.demo import plant"),
        ("gateway.app", "import gateway.cli"),
        ("gateway.journal.store", "from gateway.uplink import plain"),
        ("gateway.pipeline", "from protocols.modbus import driver"),
        ("gateway.pipeline", "from gateway.uplink.plain import Plain"),
        ("gateway.cli", "def run():\n    from gateway import app"),
        ("gateway.cli", "async def run():\n    import protocols.model"),
        ("gateway.latest", "import pymodbus.client"),
        ("gateway.latest", "from aiomqtt import Client"),
        ("gateway.latest", "import apsw"),
        ("gateway.latest", "import time\nnow = time.time()"),
        ("gateway.latest", "from time import monotonic"),
        ("gateway.latest", "import datetime\nnow = datetime.datetime.now()"),
    ],
)
def test_each_rule_bites(module: str, source: str) -> None:
    """A source that breaks a rule is found."""
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gateway.cli", "from gateway import app"),
        ("gateway.demo.demo", "from gateway import app\nfrom gateway.demo import plant"),
        ("gateway.pipeline", "from protocols.model import Batch\nfrom protocols import model\nfrom gateway.journal.record import Lane"),
        ("protocols.modbus.driver", "import pymodbus\nfrom protocols.modbus import plan\nfrom protocols.model import Tag"),
        ("gateway.cli", "def run():\n    import textwrap"),
        ("gateway.journal.store", "import apsw\nimport time\ntime.perf_counter()"),
        ("protocols.clock", "import time\ntime.time_ns()"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    """A source that keeps the rules is not accused."""
    assert violations(module, source) == []
