"""Gives each driver's suite its own hostile peers."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contract.driver_suite")  # before its first import

from tests.contract.driver_suite import DriverSuite  # noqa: E402 # see above


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "misdeed" in metafunc.fixturenames and metafunc.cls is not None and issubclass(metafunc.cls, DriverSuite):
        metafunc.parametrize("misdeed", metafunc.cls.misdeeds)
