"""A typed client of the local API: ``Client`` waits, ``AsyncClient`` is awaited. See docs/how-to/use-the-api-from-python.md.

>>> from holdfast.client import Client
>>> with Client("https://192.0.2.7:8443", "hft_...", ca_file="gateway-ca.pem") as gateway:
...     print(gateway.get_gateway().name)
"""

from __future__ import annotations

from holdfast.client import asks
from holdfast.client.ask import Answer, Ask, Download
from holdfast.client.client import AsyncClient, Client
from holdfast.client.errors import (
    ClientError,
    Conflict,
    Ended,
    NotAllowed,
    NotThere,
    Outdated,
    Refused,
    TooMany,
    Unavailable,
    Unfit,
    Unknown,
    Unreachable,
    Untrusted,
)

__all__ = [
    "Answer",
    "Ask",
    "AsyncClient",
    "Client",
    "ClientError",
    "Conflict",
    "Download",
    "Ended",
    "NotAllowed",
    "NotThere",
    "Outdated",
    "Refused",
    "TooMany",
    "Unavailable",
    "Unfit",
    "Unknown",
    "Unreachable",
    "Untrusted",
    "asks",
]
