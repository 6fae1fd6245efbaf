"""What one subscription shows: a filter and what its owner sees, as masks over slots. Pure.

Whether a tag is shown is found once for each device; a record then costs one indexing. Two subscriptions with the same filter
and the same sight share a view, and so what is made of a record for them.

The gateway's own devices (``_commands``) say in a field called ``device`` whom they speak of: that is whom sight and filter judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.identity.sight import Sight
from holdfast.shapes.live import Subscribe
from protocols.model import SEVERITY_MASK, Batch, Device

MOST_DEVICES: Final = 10_000
WORST: Final = {"good": 0x00000000, "uncertain": 0x40000000, "bad": 0x80000000}
ABOUT: Final = "device"
_Mask = NDArray[np.bool_] | bool


class Key(msgspec.Struct, frozen=True):
    """What makes two views the same."""

    devices: tuple[str, ...]
    tags: tuple[str, ...]
    kinds: tuple[str, ...]
    least_quality: str
    every_ms: int
    sight: str | None


class View:
    def __init__(self, wish: Subscribe, sight: Sight) -> None:
        pattern = sight.pattern.pattern if sight.pattern is not None else None
        self.key = Key(wish.devices, wish.tags, wish.kinds, wish.least_quality, wish.every_ms, pattern)
        self.every_s = wish.every_ms / 1000
        self._sight = sight
        self._devices = _any_of(wish.devices)
        self._tags = _any_of(wish.tags)
        self._kinds = frozenset(wish.kinds)
        self._worst = WORST[wish.least_quality]
        self._masks: dict[Device, _Mask] = {}

    def values(self, batch: Batch) -> Batch | None:
        """The part of ``batch`` that is shown, or None."""
        mask = self.mask(batch.device)
        if mask is False:
            return None
        keep: Any = True if mask is True else mask[batch.tag]  # Any: a bool, or an array of them
        if self._worst != WORST["bad"]:
            keep = keep & ((batch.quality & SEVERITY_MASK) <= self._worst)
        if keep is True or keep.all():
            return batch
        return _rows(batch, keep) if keep.any() else None

    def event(self, batch: Batch) -> Batch | None:
        """An event is shown whole or not at all."""
        if not batch.device.name.startswith("_"):
            return batch if self.mask(batch.device) is not False else None
        about = _about(batch)
        return batch if (self._sight.whole or about) and self.shows(about) else None

    def shows(self, device: str) -> bool:
        """True where the device of this name is seen and asked for."""
        return (self._sight.whole or self._sight.sees(device)) and (self._devices is None or bool(self._devices.fullmatch(device)))

    def mask(self, device: Device) -> _Mask:
        """Which slots of ``device`` are shown; True and False are all and none."""
        found = self._masks.get(device)
        if found is None:
            if len(self._masks) >= MOST_DEVICES:
                self._masks.clear()
            found = self._masks[device] = self._judged(device)
        return found

    def _judged(self, device: Device) -> _Mask:
        if device.name.startswith("_") or not self.shows(device.name):
            return False
        if self._tags is None and not self._kinds:
            return True
        shown = [
            (self._tags is None or self._tags.fullmatch(tag.name) is not None) and (not self._kinds or tag.kind.value in self._kinds)
            for tag in device.tags
        ]
        return np.array(shown, dtype=np.bool_) if any(shown) and not all(shown) else any(shown)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    listed = "|".join(translate(pattern.replace("[", "[[]")) for pattern in patterns)  # only * and ? stand for something
    return re.compile(listed) if listed else None


def _rows(batch: Batch, keep: NDArray[np.bool_]) -> Batch:
    return Batch(batch.device, batch.tag[keep], batch.value[keep], batch.quality[keep], batch.time_ns[keep], batch.lost)


def _about(batch: Batch) -> str:
    """The device of which an event of the gateway's own speaks; empty where it is the gateway."""
    for slot, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True):
        if batch.device.tags[slot].name == ABOUT and isinstance(value, str):
            return value
    return ""
