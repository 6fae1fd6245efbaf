"""From a payload to batches. Whatever the bytes are, ``decode`` gives batches: trouble is a quality, never an exception."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocols.model import Batch, Device, Quality
from protocols.payload.births import Births
from protocols.payload.formats import Format, format_of_media_type
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.payload.paths import NOTHING
from protocols.payload.readers import Place, Reader, SparkplugReader, make_reader
from protocols.payload.trouble import BadPlace, Undecodable
from protocols.values import Composer, Reading

MEDIA_TYPES_REMEMBERED: Final = 64


class Decoder:
    """Reads the payloads of one device.

    ``tags[i]`` is what ``device.tags[i]`` came from. ``slots`` are those of them that these payloads carry: all, unless a
    device writes its tags into several kinds of payload, each with a decoder of its own.
    """

    def __init__(self, device: Device, tags: Sequence[PayloadTag], options: PayloadOptions, *, slots: Sequence[int] | None = None) -> None:
        self._composer = Composer(device, tags)
        self._options = options
        self._places: tuple[Place, ...] = tuple((slot, tags[slot]) for slot in (range(len(tags)) if slots is None else slots))
        self._readers: dict[Format, tuple[Reader, tuple[int, ...]]] = {}
        self._formats: dict[str, Format | None] = {}
        self._is_partial = options.missing == "keep" or options.format is Format.SPARKPLUG
        self.trouble = ""
        """Why the last payload could not be read as a whole; empty where it could."""
        self.absent: list[int] = []
        """Slots that the last payload lacked, unless what is missing is kept."""

    @property
    def births(self) -> Births | None:
        """What Sparkplug births told; None for every other format."""
        reader = self._reader(Format.SPARKPLUG)[0] if self._options.format is Format.SPARKPLUG else None
        return reader.births if isinstance(reader, SparkplugReader) else None

    def decode(
        self,
        payload: bytes,
        now_ns: int,
        *,
        media_type: str = "",
        format: Format | None = None,
        birth: bool = False,
        is_old: bool = False,
    ) -> list[Batch]:
        """The batches of one payload that arrived at ``now_ns`` (UTC, nanoseconds). Never raises for content.

        ``format`` is one that the transport said (a CoAP content format); it and ``media_type`` count where the options
        say auto. ``birth`` says that a Sparkplug payload is an NBIRTH or DBIRTH. ``is_old`` says that the payload was kept
        for us (a retained message): what carries no time of its own is then the last usable value, not a good one. Empty
        where the payload has no tag of this device and what is missing is kept.
        """
        self.trouble = ""
        self.absent = []
        try:
            readings = self._readings(payload, now_ns, media_type, format, birth)
        except Undecodable as trouble:
            self.trouble = str(trouble)
            return self.bad(trouble.quality, now_ns)
        kept: list[Reading] = []
        for slot, raw, quality, time_ns in readings:
            if raw is NOTHING:
                if not self._is_partial:
                    self.absent.append(slot)
                    kept.append((slot, None, Quality.BAD_NODE_ID_UNKNOWN, time_ns))
            elif is_old and quality == Quality.GOOD and time_ns == now_ns:
                kept.append((slot, raw, Quality.UNCERTAIN_LAST_USABLE_VALUE, now_ns))
            else:
                kept.append((slot, raw, quality, time_ns))
        return self._composer.batches(kept)

    def bad(self, quality: Quality, now_ns: int) -> list[Batch]:
        """Every tag of these payloads with one bad quality."""
        return self._composer.batches((slot, None, quality, now_ns) for slot, _ in self._places)

    def _readings(self, payload: bytes, now_ns: int, media_type: str, format: Format | None, birth: bool) -> list[Reading]:
        if len(payload) > self._options.max_bytes:
            raise Undecodable(f"the payload has {len(payload)} bytes, more than the {self._options.max_bytes} of max_bytes")
        reader, unplaced = self._reader(self._format(media_type, format))
        if birth and isinstance(reader, SparkplugReader):
            readings = reader.read(payload, now_ns, birth=True)
        else:
            readings = reader.read(payload, now_ns)
        readings.extend((slot, None, Quality.BAD_CONFIGURATION_ERROR, now_ns) for slot in unplaced)
        return readings

    def _format(self, media_type: str, said: Format | None) -> Format:
        if self._options.format is not Format.AUTO:
            return self._options.format
        if said is not None or not media_type:
            return said or Format.JSON
        if media_type not in self._formats:
            if len(self._formats) >= MEDIA_TYPES_REMEMBERED:
                self._formats.clear()
            self._formats[media_type] = format_of_media_type(media_type)
        found = self._formats[media_type]
        if found is None:
            raise Undecodable(f"the payload is {media_type[:80]}, which is not read: say its format", Quality.BAD_NOT_SUPPORTED)
        return found

    def _reader(self, format: Format) -> tuple[Reader, tuple[int, ...]]:
        """The reader of a format, and the slots whose ``at`` means nothing in it."""
        found = self._readers.get(format)
        if found is None:
            good = [place for place in self._places if _fits(format, place, self._options)]
            unplaced = tuple(slot for slot, _ in self._places if slot not in {each for each, _ in good})
            try:
                reader = make_reader(format, good, self._options)
            except BadPlace as trouble:  # the time's place, or that of the records
                raise Undecodable(f"{trouble}: {trouble.advice}", Quality.BAD_CONFIGURATION_ERROR) from None
            found = self._readers[format] = (reader, unplaced)
        return found


def _fits(format: Format, place: Place, options: PayloadOptions) -> bool:
    try:
        make_reader(format, [place], PayloadOptions(csv_header=options.csv_header))
    except BadPlace:
        return False
    return True
