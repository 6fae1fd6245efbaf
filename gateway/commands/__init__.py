"""Commands: wishes to change something in the field, whoever has them, through one gate, each with a recorded outcome."""

from __future__ import annotations

from gateway.commands.gate import Gate

__all__ = ["Gate"]
