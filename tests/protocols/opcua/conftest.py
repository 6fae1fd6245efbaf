"""One node-opcua for all tests of this folder, with security and a user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.opcua import OpcUaServer


@pytest.fixture(scope="package")
def server() -> Iterator[OpcUaServer]:
    peer = OpcUaServer(secure=True, users={"operator": "s3cret-canary"})
    peer.launch()
    yield peer
    peer.close()
