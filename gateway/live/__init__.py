"""What happens, as it happens, to whoever follows: one reader of the journal for all of them."""

from __future__ import annotations

from gateway.live.client import Client
from gateway.live.live import Live

__all__ = ["Client", "Live"]
