"""What every command shares: the argument SITE, loading it, saying what is wrong, exit codes, the event loop."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import uvloop

from gateway import config
from gateway.config import Located, model
from protocols.contract import Problem

T = TypeVar("T")

FAILED: Final = 1
WRONG: Final = 2

SITE = click.argument("site", type=click.Path(exists=True, dir_okay=False, path_type=Path))


def loaded(site: Path) -> model.Site:
    """The document in ``site`` if nothing in it is wrong; otherwise says what is and exits."""
    document, problems = config.judge(site)
    if document is None:
        errors = [problem for problem in problems if problem.severity == "error"]
        show(errors)
        fail(f"{site}: {len(errors)} errors; nothing was started", WRONG)
    return document


def show(problems: list[Problem]) -> None:
    for problem in problems:
        line = f"line {problem.line}: " if isinstance(problem, Located) and problem.line else ""
        click.echo(f"{problem.severity}: {line}{problem.path or 'document'}: {problem.message}", err=True)
        if problem.advice:
            click.echo(f"    {problem.advice}", err=True)


def printable(text: str) -> str:
    """``text`` without what could command a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def fail(text: str, code: int = FAILED) -> NoReturn:
    click.echo(f"holdfast: {text}", err=True)
    sys.exit(code)


def run_loop(work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine is sent and yields is the loop's affair
    return uvloop.run(work)
