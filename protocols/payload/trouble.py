"""The two ways in which a payload fails: its text says why."""

from __future__ import annotations

from protocols.model import Quality


class Undecodable(ValueError):
    """The payload as a whole cannot be read; every tag gets ``quality``."""

    def __init__(self, text: str, quality: Quality = Quality.BAD_DECODING_ERROR) -> None:
        super().__init__(text)
        self.quality = quality


class BadPlace(ValueError):
    """``at`` cannot be compiled for this format. ``advice`` says what to write."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice
