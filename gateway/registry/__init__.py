"""The device registry: which devices there are, in which part of their life, with which credentials, and how they are."""

from __future__ import annotations

from gateway.registry.registry import MIGRATIONS, PUSHING, Entry, Kind, Registry, Step

__all__ = ["MIGRATIONS", "PUSHING", "Entry", "Kind", "Registry", "Step"]
