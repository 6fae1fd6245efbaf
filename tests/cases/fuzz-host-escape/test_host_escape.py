"""See README.md."""

from __future__ import annotations

from pathlib import Path

from gateway.config import judge


def test_no_problem_holds_what_a_terminal_obeys() -> None:
    _, problems = judge(Path(__file__).with_name("site.yaml"))
    assert any("in the clear" in problem.message for problem in problems)
    assert all(problem.message.isprintable() and problem.advice.isprintable() for problem in problems)
