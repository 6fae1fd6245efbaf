"""See README.md."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from protocols.secret import FromFile, SecretMissing


def test_a_path_that_no_file_can_have_is_a_missing_secret() -> None:
    reference = msgspec.json.decode(Path(__file__).with_name("reference.json").read_bytes(), type=FromFile)
    with pytest.raises(SecretMissing, match="null byte"):
        reference.read()
