"""Commands: wishes to change something in the field, whoever has them, through one gate, each with a recorded outcome."""

from __future__ import annotations

from gateway.commands.course import Course, Stage
from gateway.commands.gate import Gate
from gateway.commands.memory import MIGRATIONS, Memory
from gateway.commands.origin import Origin

__all__ = ["MIGRATIONS", "Course", "Gate", "Memory", "Origin", "Stage"]
