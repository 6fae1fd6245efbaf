"""A decoder of one device, and what it says of a payload, for tests."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocols.model import Device, Quality
from protocols.payload import Decoder, PayloadOptions, PayloadTag

NOW_NS: Final = 1_800_000_000_000_000_000
"""2027-01-15 08:00 UTC."""


class Told:
    """Tags and options as a document has them."""

    def __init__(self, tags: dict[str, tuple[str, str]] | list[dict[str, Any]], **options: Any) -> None:  # Any: JSON
        written = tags if isinstance(tags, list) else [{"name": name, "kind": kind, "at": at} for name, (kind, at) in tags.items()]
        self.tags = msgspec.convert(written, list[PayloadTag])
        self.options = msgspec.convert(options, PayloadOptions)
        self.device = Device("c", "d", tuple(tag.tag() for tag in self.tags))
        self.decoder = Decoder(self.device, self.tags, self.options)

    def rows(self, payload: bytes | str, **more: Any) -> list[tuple[str, Any, Quality, int]]:  # Any: arguments of decode, values
        """Name, value, quality and time before now (in milliseconds) of everything that the payload brought, in order."""
        content = payload.encode() if isinstance(payload, str) else payload
        return [
            (self.device.tags[slot].name, value, Quality(quality), (time_ns - NOW_NS) // 1_000_000)
            for batch in self.decoder.decode(content, NOW_NS, **more)
            for slot, value, quality, time_ns in zip(
                batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True
            )
        ]

    def values(self, payload: bytes | str, **more: Any) -> dict[str, Any]:  # Any: as above
        """Value by name where it is good, else the quality."""
        return {name: value if quality == Quality.GOOD else quality for name, value, quality, _ in self.rows(payload, **more)}
