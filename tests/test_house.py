"""The house style where a machine can see it: openings, names, swallowed errors, what no file may hold.

Each rule is one function over a syntax tree or a text, with its exceptions listed and counted here.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
TREES: Final = ("gateway", "protocols", "tui", "tests", "tools")
BROAD: Final[dict[str, int]] = {
    "gateway/commands/gate.py": 1,  # a bug of a driver ends neither the gateway nor whoever asked: the command has failed, and it is logged
    "gateway/links.py": 1,  # the outer loop: a bug in one session must not stop its neighbours
    "tests/peers/cloud.py": 1,  # a thread of paho's ends without a word: what it met is kept, and the test fails by it
    "tests/faults/test_links.py": 1,  # the same
}
"""Where ``except Exception`` may stand, and how often."""
VAGUE: Final = re.compile(r"(Manager|Helper|Utils?|Base|Info)$|^(Manager|Helper|Utils?|Base|Data|Info)(?=[A-Z]|$)")
"""Names that say nothing; where only such a name fits, the thing is two things."""
NOWHERE: Final = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs|registry\.yarnpkg|--index-url|(?<![a-z])/root/(?!\.)", re.IGNORECASE
)
"""Which registry or mirror is asked is the machine's business, and so is where the project lies on it.
The home of a host that is deployed to is none of that."""


def sources() -> Iterator[Path]:
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*.py")):
            if "node_modules" not in path.parts and not path.name.endswith("_pb2.py"):
                yield path


def broad_handlers(tree: ast.Module) -> int:
    """How often ``tree`` catches everything (handlers that raise again do not swallow)."""
    return sum(
        isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        for node in ast.walk(tree)
    )


def vague_names(tree: ast.Module) -> list[str]:
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and VAGUE.search(node.name)]


def unexplained_ignores(source: str) -> list[int]:
    """Lines with ``type: ignore`` or ``noqa`` and no words after it."""
    ignore = re.compile(r"#\s*(type:\s*ignore|noqa)(\[[^\]]*\]|:\s*[A-Z0-9, ]+)?(?P<reason>.*)$")
    found = ((number, ignore.search(line)) for number, line in enumerate(source.splitlines(), start=1))
    return [number for number, match in found if match and not re.search(r"\w{2}", match["reason"])]


def test_every_module_opens_with_its_strategy() -> None:
    """A reader learns from the first lines what a module is for."""
    assert not [
        str(path.relative_to(ROOT)) for path in sources() if path.read_text() and not ast.get_docstring(ast.parse(path.read_text()))
    ]


def test_nothing_is_swallowed() -> None:
    """Everything is caught only where the house style names it."""
    found = Counter({str(path.relative_to(ROOT)): broad_handlers(ast.parse(path.read_text())) for path in sources()})
    assert +found == Counter(BROAD)


def test_nothing_is_left_over() -> None:
    """No tool's copy of a file lies beside it."""
    assert not [
        str(path.relative_to(ROOT)) for tree in TREES for path in (ROOT / tree).rglob("*") if path.suffix in (".orig", ".rej", ".bak")
    ]


def test_names_say_something() -> None:
    """No class is called Manager, Helper, Util, Base, Data or Info."""
    assert not [(str(path.relative_to(ROOT)), names) for path in sources() if (names := vague_names(ast.parse(path.read_text())))]


def test_each_ignored_rule_says_why() -> None:
    """After each ``type: ignore`` or ``noqa`` stands a reason."""
    assert not [(str(path.relative_to(ROOT)), lines) for path in sources() if (lines := unexplained_ignores(path.read_text()))]


def test_nothing_is_left_to_do() -> None:
    """No source says that it is not finished."""
    left = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    assert not [str(path.relative_to(ROOT)) for path in sources() if path != Path(__file__) and left.search(path.read_text())]


def test_no_file_holds_an_address_of_a_registry() -> None:
    """What is committed names no package registry, and no place on the machine it was made on."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so what is committed cannot be listed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout.decode().split("\0")
    files = [ROOT / name for name in listed if name and ROOT / name != Path(__file__)]
    assert not [str(path) for path in files if path.is_file() and NOWHERE.search(path.read_text(errors="replace"))]


def test_the_rules_bite() -> None:
    """Each rule finds what it is for."""
    assert broad_handlers(ast.parse("try:\n    f()\nexcept Exception:\n    pass\n")) == 1
    assert broad_handlers(ast.parse("try:\n    f()\nexcept BaseException:\n    undo()\n    raise\n")) == 0
    assert vague_names(ast.parse("class DriverManager: ...\nclass DataPlane: ...\nclass Database: ...\nclass Baseline: ...")) == [
        "DriverManager",
        "DataPlane",
    ]
    assert unexplained_ignores("x = 1  # type: ignore[misc]\ny = 2  # type: ignore[misc]  # the stub is wrong\n") == [1]
    assert NOWHERE.search("https://pypi.org/simple")
