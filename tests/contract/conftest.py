"""Gives each driver's suite its own hostile peers."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contract.driver_suite")  # before its first import

from tests.contract.driver_suite import DriverSuite  # noqa: E402 # see above


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of what a protocol cannot have by its nature are not run for it; pytest tells how many were deselected."""
    out = [item for item in items if isinstance(item, pytest.Function) and not _has_what_it_needs(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def _has_what_it_needs(item: pytest.Function) -> bool:
    needed = {ability for mark in item.iter_markers("needs") for ability in mark.args}
    return item.cls is None or not issubclass(item.cls, DriverSuite) or needed <= item.cls.abilities


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "misdeed" in metafunc.fixturenames and metafunc.cls is not None and issubclass(metafunc.cls, DriverSuite):
        metafunc.parametrize("misdeed", metafunc.cls.misdeeds)
