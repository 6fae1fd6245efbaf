"""An outcome as a batch, so that it is journalled and delivered like any reading: the device ``_commands`` of the gateway.

One record an outcome, all columns text, so that they stay together. It lies in the events lane, which outlives telemetry.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gateway.config.model import COMMANDS
from gateway.readable import value as readable
from protocols.model import Batch, Command, Device, Kind, Outcome, Tag

_FIELDS: Final = ("id", "source", "device", "tag", "value", "state", "detail", "read_back")
LONGEST: Final = 1024
"""Characters of one field; the rest is cut off."""

DEVICE: Final = Device("", COMMANDS, tuple(Tag(name=field, kind=Kind.STRING, max_silence_s=0.0) for field in _FIELDS))
_SLOTS: Final = np.arange(len(_FIELDS), dtype=np.uint32)


def batch_of(command: Command, outcome: Outcome, source: str) -> Batch:
    """What became of ``command``, which ``source`` asked for."""
    said = (
        command.id,
        source,
        command.device,
        command.tag,
        _text(command.value),
        outcome.state.value,
        outcome.detail,
        "" if outcome.read_back is None else _text(outcome.read_back),
    )
    value = np.empty(len(said), dtype=np.object_)
    value[:] = [each[:LONGEST] for each in said]
    quality = np.zeros(len(said), dtype=np.uint32)
    return Batch(DEVICE, _SLOTS, value, quality, np.full(len(said), outcome.time_ns, dtype=np.int64))


def _text(value: bool | int | float | str | bytes) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return "a number of many digits"  # Python refuses to spell out thousands of them
    return str(value).lower() if isinstance(value, bool) else str(readable(value))
