"""The command line: one module a group of commands. ``root`` is what ``holdfast`` starts."""

from __future__ import annotations

from gateway.cli.root import main

__all__ = ["main"]
