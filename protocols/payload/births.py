"""Sparkplug payloads of one edge node or device: what a birth told (names, aliases, datatypes) is what data messages lean on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from protocols.model import Quality
from protocols.payload.trouble import Undecodable
from protocols.sparkplug.kinds import BAD, GOOD, QUALITY, STATUS_CODE
from protocols.sparkplug.payload import Limits, Malformed, Metric, Payload, decode, value_of

MAX_METRICS: Final = 20_000
BDSEQ: Final = "bdSeq"


@dataclass(frozen=True, slots=True)
class Told:
    """One metric of a message, with the name that its alias stands for."""

    name: str
    value: Any  # Any: bool, number, text, bytes; None where it is null or of a type that is not read
    quality: int
    time_ms: int | None


class Births:
    """The metrics that births announced. ``wants_birth`` is true from an unknown alias on, until a birth is read."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._datatypes: dict[str, int] = {}
        self.wants_birth = False
        self.seq: int | None = None
        """The sequence number of the last message; None where it had none, or could not be read."""
        self.bdseq: int | None = None
        """The birth/death number in the last message, None where it had none."""

    def forget(self) -> None:
        """The node was born anew, or died: aliases mean nothing any more."""
        self._names.clear()
        self._datatypes.clear()

    def read(self, payload: bytes, max_bytes: int, *, birth: bool) -> tuple[Payload, list[Told]]:
        """Raises Undecodable."""
        self.seq = self.bdseq = None
        try:
            message = decode(payload, Limits(payload=max_bytes, metrics=MAX_METRICS))
        except Malformed as error:
            raise Undecodable(str(error)) from None
        if birth:
            self.forget()
            self.wants_birth = False
        told = [each for each in map(self._told, message.metrics) if each is not None]
        self.seq = message.seq
        self.bdseq = next((each.value for each in told if each.name == BDSEQ and type(each.value) is int), None)
        return message, told

    def _told(self, metric: Metric) -> Told | None:
        name = metric.name
        if name and len(self._datatypes) <= MAX_METRICS:
            if metric.alias is not None and len(self._names) <= MAX_METRICS:
                self._names[metric.alias] = name
            if metric.datatype is not None:
                self._datatypes[name] = metric.datatype
        if not name:
            name = self._names.get(metric.alias, "") if metric.alias is not None else ""
            if not name:
                self.wants_birth = True
                return None
        datatype = metric.datatype if metric.datatype is not None else self._datatypes.get(name)
        if datatype is None and metric.value is not None and isinstance(metric.value, int) and not isinstance(metric.value, bool):
            self.wants_birth = True  # without its datatype a number has no sign
            return None
        value = None if metric.value is None else value_of(metric.value, datatype or 0)
        return Told(name, value, _quality(metric), metric.timestamp_ms)


def _quality(metric: Metric) -> int:
    """The quality that the metric's properties tell; null is bad."""
    code = metric.properties.get(STATUS_CODE)
    if type(code) is int and 0 <= code < 2**32:
        quality = code
    else:
        said = metric.properties.get(QUALITY)
        quality = Quality.GOOD if said is None or said == GOOD else Quality.BAD if said == BAD else Quality.UNCERTAIN
    if metric.value is None and quality < Quality.BAD:
        return Quality.BAD if metric.is_null else Quality.BAD_NOT_SUPPORTED
    return quality
