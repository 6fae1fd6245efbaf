"""Shadows: the last known and the desired state of each device, also while it is away."""

from __future__ import annotations

from gateway.shadow.shadow import MIGRATIONS, Shadows, Standing

__all__ = ["MIGRATIONS", "Shadows", "Standing"]
