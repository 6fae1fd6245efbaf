"""Gives the example's contract suite what all suites have: hostile peers by name, and only the tests that its protocol can have."""

from __future__ import annotations

from tests.contract.conftest import pytest_collection_modifyitems, pytest_generate_tests

__all__ = ["pytest_collection_modifyitems", "pytest_generate_tests"]
