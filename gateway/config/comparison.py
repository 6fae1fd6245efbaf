"""The comparison page of the protocols: a row a driver, from the table of facts at the top of its README, and from its code.

A README's table has two columns, or where its drivers differ a column for each of them, headed by their types:
``| about | http | webhook |``. A test holds that every driver's README has every fact, and that what code can tell is so.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from gateway.config.drivers import Drivers, own, usable
from gateway.config.options import summary
from protocols.contract import Driver

ABOUT: Final = ("library", "reads", "writes", "browse", "probe", "security", "time source", "tested against", "extra")
"""The facts, as the first column of a README's table has them, in the order of the page."""
ALL: Final = "what"
"""Head of the column where a README's drivers do not differ."""
UNTOLD: Final = "not told"

HEAD: Final = """\
# Protocols

<!-- Made from the drivers and their READMEs by `make docs`; a change here is lost. -->

A connection's `type` chooses its driver. `holdfast probe` works with each of them. An *extra* has to be asked for at installation:
`pip install 'holdfast[NAME]'`. Another protocol is [a package of its own](../how-to/write-a-driver.md).
"""


def comparison(*, drivers: Drivers | None = None) -> str:
    """The page, Markdown."""
    used = sorted(usable(own() if drivers is None else drivers).items())
    lines = [HEAD, *_table("What they do", used, ABOUT[:5]), *_table("What they stand on", used, ABOUT[5:])]
    return "\n".join(lines)


def _table(title: str, used: list[tuple[str, Driver]], about: tuple[str, ...]) -> list[str]:
    heads = ["type", "for", *about] if about[0] == ABOUT[0] else ["type", *about]
    lines = [f"## {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, driver in used:
        page = readme(driver)
        told = facts(page, name)
        named = [
            f"[`{name}`](../../{folder(driver)}/README.md)" if page else f"`{name}`",
            *([summary(driver.options)] if "for" in heads else []),
        ]
        lines.append(f"| {' | '.join([*named, *(told.get(each, UNTOLD) for each in about)])} |")
    return [*lines, ""]


def folder(driver: Driver) -> str:
    """Where one of our drivers lies: ``protocols/modbus``."""
    return "/".join(type(driver).__module__.split(".")[:2])


def readme(driver: Driver) -> str:
    """Its README; empty where there is none."""
    page = files(folder(driver).replace("/", ".")).joinpath("README.md")
    return page.read_text() if page.is_file() else ""


def facts(text: str, name: str) -> dict[str, str]:
    """The facts that a README tells about driver ``name``, from its first table with the head ``about``."""
    table = re.search(r"^\| *about *\|.*(?:\n\|.*)*", text, re.MULTILINE)
    if table is None:
        return {}
    head, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[0].splitlines()]
    column = next((at for at, title in enumerate(head) if name in title.replace("`", "").replace(",", " ").split()), None)
    if column is None and ALL in head:
        column = head.index(ALL)
    return {} if column is None else {row[0]: row[column] for row in rows if len(row) == len(head)}
