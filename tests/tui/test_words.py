"""The words of the line console: what is typed is read or refused with a sentence; nothing in the package runs or opens anything."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.doing import DOING, wish
from tui.words import BY_NAME, LONGEST_LINE, WORDS, Wrong, completions, read

TUI = Path(__file__).parents[2] / "tui"
RUNS_OR_OPENS = {"subprocess", "pty", "multiprocessing", "ctypes", "shutil", "tempfile", "importlib.util", "runpy", "code", "pdb", "pydoc"}
CALLS = {"open", "exec", "eval", "compile", "system", "popen", "fork", "forkpty", "spawnv", "posix_spawn", "breakpoint", "__import__"}
CALLS |= {"execv", "execve", "execvp", "read_text", "write_text", "read_bytes", "write_bytes", "read_history_file", "write_history_file"}


def test_each_word_has_what_it_does() -> None:
    assert set(DOING) == set(BY_NAME)
    assert len(BY_NAME) == len(WORDS)


def test_no_module_of_the_console_can_run_or_open_anything() -> None:
    """But for the one that forgets its output, into the null device."""
    found = []
    for path in sorted(TUI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module or ""}
                found += [(path.name, name) for name in names if name in RUNS_OR_OPENS]
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                found += [(path.name, ast.unparse(node))] if called in CALLS else []
    assert found == [("main.py", "os.open(os.devnull, os.O_WRONLY)")]


@given(st.text(max_size=600))
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        said = read(line)
    except Wrong:
        return
    assert said is None or said[0].least <= len(said[1]) <= said[0].most
    assert len(line) <= LONGEST_LINE


@pytest.mark.parametrize(
    ("typed", "kind", "expected"),
    [
        ("21", "uint16", 21),
        ("-3", "int16", -3),
        ("21.5", "float32", 21.5),
        ("18446744073709551615", "uint64", 18446744073709551615),
        ("on", "bool", True),
        ("OFF", "bool", False),
        ("on", "string", "on"),
        ("1e3", "float64", 1000.0),
    ],
)
def test_what_is_typed_becomes_a_value_of_the_kind(typed: str, kind: str, expected: object) -> None:
    assert (wish(typed, kind), type(wish(typed, kind))) == (expected, type(expected))


@pytest.mark.parametrize(("typed", "kind"), [("21,5", "float32"), ("much", "int16"), ("nan", "float32"), ("inf", "uint8"), ("2", "bool")])
def test_what_is_no_such_value_is_said(typed: str, kind: str) -> None:
    with pytest.raises(Wrong):
        wish(typed, kind)


def names(kind: str, before: Sequence[str]) -> list[str]:
    known = {"device": ["meter-1", "meter 2", "me'ter"], "connection": ["hall"]}
    return [f"{before[-1]}/voltage"] if kind == "tag" else known.get(kind, [])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dev", ["device", "devices"]),
        ("value m", ["meter-1"]),
        ("value meter-1 ", ["meter-1/voltage"]),
        ("value meter-1 voltage ", []),
        ("lock-out c", ["connection"]),
        ("lock-out connection ", ["hall"]),
        ("lock-out device m", ["meter-1"]),
        ("lock-out gateway ", []),
        ("help qu", ["quit"]),
        ("nonsense ", []),
        ("status ", []),
    ],
)
def test_completion_offers_what_fits(line: str, expected: list[str]) -> None:
    assert completions(line, names) == expected
