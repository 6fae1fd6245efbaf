"""Every driver tells its facts, and where code can tell them too, it tells the same: the comparison page cannot rot."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from gateway.config.comparison import ABOUT, UNTOLD, comparison, facts, readme
from gateway.config.drivers import GROUP, own
from protocols.contract import Driver

ROOT: Final = Path(__file__).parents[3]
DRIVERS: Final = sorted(own().items())
NAMES: Final = [name for name, _ in DRIVERS]

each_driver = pytest.mark.parametrize(("name", "driver"), DRIVERS, ids=NAMES)


@each_driver
def test_every_driver_tells_every_fact_once(name: str, driver: Driver) -> None:
    told = facts(readme(driver), name)
    assert list(told) == list(ABOUT), f"{name}: the table at the top of its README has not these facts in this order"
    assert all(told.values())


@each_driver
def test_every_readme_has_a_sample_and_a_table_of_qualities(name: str, driver: Driver) -> None:
    page = readme(driver)
    samples = re.findall(r"```(?:yaml|python)\n(.*?)```", page, re.DOTALL)
    assert any(re.search(rf"""type"?: *"?{name}\b(?!-)""", sample) for sample in samples), f"no sample of a connection of type {name}"
    assert re.search(r"^\|.*\b(Bad|Uncertain)[A-Z][A-Za-z]+", page, re.MULTILINE), "no table says what is seen as which quality"


@each_driver
def test_browse_is_told_as_the_code_has_it(name: str, driver: Driver) -> None:
    said = facts(readme(driver), name)["browse"]
    assert re.match(r"(yes|no)\b", said)
    assert said.startswith("yes") == hasattr(driver, "browse")


@each_driver
def test_the_extra_is_the_one_of_the_entry_point(name: str, driver: Driver) -> None:
    (entry,) = (one for one in entry_points(group=GROUP) if one.name == name and one.value.startswith("protocols."))
    assert facts(readme(driver), name)["extra"] == (f"`{entry.extras[0]}`" if entry.extras else "none")


@each_driver
def test_the_library_is_one_that_is_installed_in_that_version(name: str, driver: Driver) -> None:
    """Name and, where it is told, version: as the lock has them."""
    library, version = _library(facts(readme(driver), name)["library"])
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert library in _asked_for()
    assert locked[library].startswith(version)


def _library(said: str) -> tuple[str, str]:
    found = re.match(r"([a-z0-9-]+)(?: (\d[\d.]*))?", said)
    assert found is not None, f"{said!r} does not begin with the name of a package"
    return found[1], (found[2] or "").rstrip(".")


def _asked_for() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    return {Requirement(text).name for text in (*project["dependencies"], *extras)}


def test_the_page_has_a_row_for_each_driver_in_both_tables() -> None:
    page = comparison()
    assert [page.count(f"| [`{name}`](") for name in NAMES] == [2] * len(NAMES)
    assert UNTOLD not in page


TABLE: Final = """\
# A

| about | `a-tcp`, `a-rtu` | a |
|---|---|---|
| library | one | two |
| reads | poll \\| push | push |

| about | what |
|---|---|
| library | of another table |
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a-tcp", {"library": "one", "reads": "poll \\| push"}),
        ("a-rtu", {"library": "one", "reads": "poll \\| push"}),
        ("a", {"library": "two", "reads": "push"}),
        ("b", {}),
    ],
)
def test_a_column_is_of_the_types_in_its_head(name: str, told: dict[str, str]) -> None:
    assert facts(TABLE, name) == told


def test_a_page_without_a_table_tells_nothing() -> None:
    assert facts("", "a") == facts("# A\n\n| what | means |\n|---|---|\n| a | b |\n", "a") == {}
