"""Documentation that is wrong fails the build: links lead somewhere, documents load, commands and targets exist.

Fenced blocks are read by their language. ``yaml`` that begins with ``holdfast:`` must be a right site document; ``json``
must parse; each ``holdfast ...`` and ``make ...`` line of a ``sh`` block must name a command or target that there is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import pytest

from gateway import config
from gateway.cli import main

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "protocols/**/*.md", "gateway/**/*.md", "tests/**/*.md")
    for page in ROOT.glob(pattern)
    if not {"node_modules", ".venv", ".pytest_cache"} & set(page.parts)
)
NOT_OUR_WORDS: Final = ("slave", "northbound", "southbound", "poll cycle", "asset")
"""Words for which ``docs/README.md`` has one of ours."""


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for found in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text: str) -> set[str]:
    """What ``#...`` may name in a page, as the usual renderers build it."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Relative links of ``page`` that lead nowhere."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and to.suffix == ".md" and anchor not in anchors(to.read_text())):
            dead.append(target)
    return dead


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def unknown_commands(script: str) -> list[str]:
    """Lines of ``script`` that call a ``holdfast`` command or ``make`` target that does not exist."""
    wrong = []
    for line in script.splitlines():
        words = re.sub(r"^(\$ |sudo )", "", line.strip()).split()
        name = words[1] if len(words) > 1 else ""
        if words[:1] == ["make"] and name and name not in targets():
            wrong.append(line)
        if words[:1] == ["holdfast"] and name and not name.startswith("-") and not _command(words[1:]):
            wrong.append(line)
    return wrong


def _command(words: list[str]) -> bool:
    found: click.Command | None = main
    while isinstance(found, click.Group):
        found = found.get_command(click.Context(found), words[0]) if words else None
        words = words[1:]
    return found is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and an anchor that is in it."""
    assert not dead_links(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_are_right(page: Path) -> None:
    """Site documents load without an error, JSON parses, commands and targets exist."""
    for block in blocks(page.read_text()):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.language == "yaml" and block.text.startswith("holdfast:"):
            site, problems = config.load(block.text.encode())
            assert site is not None, (where, problems)
            assert not [problem for problem in config.check(site) if problem.severity == "error"], where
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "sh":
            assert not unknown_commands(block.text), where


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(ROOT / "docs")], ids=lambda page: page.name)
def test_one_word_per_idea(page: Path) -> None:
    """The pages use our word where we have one."""
    found = [word for word in NOT_OUR_WORDS if re.search(rf"\b{word}s?\b", prose(page.read_text()), re.IGNORECASE)]
    assert not found


def test_the_checks_bite(tmp_path: Path) -> None:
    """A dead link, a dead anchor and an unknown command are found."""
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](#other) [c](gone.md) [d](page.md) `[e](code.md)`\n")
    assert dead_links(page) == ["#other", "gone.md"]
    assert unknown_commands("make test\nmake coffee\nholdfast fly\nholdfast check site.yaml\necho hello") == ["make coffee", "holdfast fly"]
    assert [block.language for block in blocks("```sh\nls\n```\ntext\n```yaml\na: 1\n```\n")] == ["sh", "yaml"]


def test_every_page_is_in_the_contents() -> None:
    """``docs/README.md`` leads to every page of the documentation, by itself or through the folder it is in."""
    contents = (ROOT / "docs/README.md").read_text()
    docs = ROOT / "docs"
    missing = [
        str(page.relative_to(docs))
        for page in PAGES
        if page.is_relative_to(docs)
        and page != docs / "README.md"
        and str(page.relative_to(docs)) not in contents
        and f"({page.parent.relative_to(docs)}/)" not in contents
    ]
    assert not missing
