"""One mosquitto for the tests of a module that change nothing about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.mosquitto import Mosquitto

ACL = """
user gateway
topic readwrite allowed/#
topic read denied/#
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that wants to know who comes, and lets nobody do everything."""
    with Mosquitto(tmp_path_factory.mktemp("guarded"), acl=ACL, users={"gateway": "secret"}) as running:
        yield running
