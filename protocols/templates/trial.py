"""Tries a template on a live device: is it one, and what does each of its tags read, once?

It asks through the driver contract alone, so that what is tried is what the gateway will do: the same plan, the same
decoding, the same qualities.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from protocols.clock import Clock
from protocols.contract import Driver
from protocols.model import Quality
from protocols.templates.shape import Mark, Row, Template

PERIOD_S: Final = 60.0
"""One scan is wanted; the period only has to be long enough for any line to carry it."""


MARK: Final = "mark of the model "
"""How the tags of marks are called, beside those of the device."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one tag read. ``value`` means nothing where the quality is bad."""

    tag: str
    value: bool | int | float | str | bytes
    unit: str
    quality: Quality


@dataclass(frozen=True, slots=True)
class Recognition:
    """What one mark read, and whether this model shows that."""

    mark: Mark
    reading: Reading

    @property
    def fits(self) -> bool:
        value = self.reading.value
        if self.reading.quality.is_bad:
            return False
        if self.mark.one_of:
            return (value.hex() if isinstance(value, bytes) else value) in self.mark.one_of
        if isinstance(value, str | bytes):
            return bool(value)
        low, high = self.mark.minimum, self.mark.maximum
        return (low is None or value >= low) and (high is None or value <= high)


def once(device: Row) -> Row:
    """``device`` with one long period for all its tags."""
    tags = [{key: value for key, value in tag.items() if key != "scan_s"} for tag in device["tags"]]
    return {**device, "scan_s": PERIOD_S, "tags": tags}


async def attempt(
    template: Template, connection: Row, device: Row, driver: Driver, *, clock: Clock, within_s: float
) -> tuple[list[Recognition], list[Reading]]:
    """What the marks of ``template`` and the tags of ``device`` read at the live device, in one session.

    Raises a DriverError, or msgspec.ValidationError where the driver's options refuse them.
    """
    marks = [{"name": f"{MARK}{at}", **mark.tag} for at, mark in enumerate(template.identify)]
    rows = [*marks, *device["tags"]]
    readings = await read_once(connection, {**device, "tags": rows}, driver, clock=clock, within_s=within_s)
    recognised = [Recognition(mark, readings.pop(f"{MARK}{at}")) for at, mark in enumerate(template.identify)]
    return recognised, [*readings.values()]


async def read_once(connection: Row, device: Row, driver: Driver, *, clock: Clock, within_s: float) -> dict[str, Reading]:
    """What each tag of ``device`` behind ``connection`` reads; BadTimeout for what did not come ``within_s`` seconds.

    Raises a DriverError, or msgspec.ValidationError where the driver's options refuse them.
    """
    options = msgspec.convert({**connection, "devices": [once(device)]}, driver.options)
    (known,) = driver.devices(options)
    found: dict[str, Reading] = {}
    try:
        async with asyncio.timeout(within_s), driver.open(options, clock=clock) as session:
            all_batches: Any = session.batches()  # Any: the contract says AsyncIterator, and it is a generator, which can be closed
            async with aclosing(all_batches) as batches:
                async for batch in batches:
                    for slot, value, quality in zip(batch.tag, batch.value, batch.quality, strict=True):
                        tag = known.tags[slot]
                        plain = value.item() if isinstance(value, np.generic) else value
                        found[tag.name] = Reading(tag.name, plain, tag.unit, Quality(int(quality)))
                    if len(found) == len(known.tags):
                        break
    except TimeoutError:
        pass  # what did not come is said below
    return {tag.name: found.get(tag.name, Reading(tag.name, 0, tag.unit, Quality.BAD_TIMEOUT)) for tag in known.tags}
