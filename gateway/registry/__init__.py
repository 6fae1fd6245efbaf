"""The device registry: which devices there are, in which part of their life, with which credentials, and how they are."""

from __future__ import annotations

from gateway.registry.registry import MIGRATIONS, Entry, Registry

__all__ = ["MIGRATIONS", "Entry", "Registry"]
