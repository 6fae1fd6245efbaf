"""Repairs: each known fault of the gateway as it is now, with what shows it, what it costs, and what mends it."""

from __future__ import annotations

from gateway.repairs.repairs import MIGRATIONS, Entry, Fix, Repairs, Sources

__all__ = ["MIGRATIONS", "Entry", "Fix", "Repairs", "Sources"]
