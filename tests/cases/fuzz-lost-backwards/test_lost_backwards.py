"""See README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.consume.decode import decode_plain


def test_a_lost_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        decode_plain(Path(__file__).with_name("message.json").read_bytes())
