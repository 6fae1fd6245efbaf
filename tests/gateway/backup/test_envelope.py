"""The seal of a backup: whole or not at all."""

from __future__ import annotations

import io

import pytest

from gateway.backup.envelope import CHUNK, TAG, Opened, Seal, Unsealed

HEAD = 40
PHRASE = "correct horse battery"


def sealed(content: bytes) -> bytes:
    out = io.BytesIO()
    seal = Seal(out, PHRASE, cost=14)
    for at in range(0, len(content), 10_000):
        seal.write(content[at : at + 10_000])
    seal.close()
    return out.getvalue()


def opened(content: bytes, phrase: str = PHRASE) -> bytes:
    stream = Opened(io.BytesIO(content).read, phrase)
    parts = []
    while part := stream.read(7777):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_was_sealed_comes_back_and_nothing_of_it_is_seen_outside(size: int) -> None:
    content = (b"private key " * (size // 12 + 1))[:size]
    box = sealed(content)
    assert opened(box) == content
    assert b"private" not in box


def test_a_changed_a_cut_a_mixed_and_a_lengthened_file_are_refused() -> None:
    content = bytes(range(256)) * 700  # three chunks
    box = sealed(content)
    one = CHUNK + TAG
    wrong = [
        *(flipped(box, at) for at in (0, 20, 33, 38, 39, HEAD, HEAD + one + 5, len(box) - 1)),
        *(box[:at] for at in (0, 10, HEAD, HEAD + one, HEAD + 2 * one, len(box) - 1)),
        box[:HEAD] + box[HEAD + one : HEAD + 2 * one] + box[HEAD : HEAD + one] + box[HEAD + 2 * one :],
        box[:HEAD] + box[HEAD + one :],
        box + b"x",
        sealed(content)[:HEAD] + box[HEAD:],
    ]
    for each in wrong:
        with pytest.raises(Unsealed):
            opened(each)


def test_a_wrong_passphrase_is_said() -> None:
    with pytest.raises(Unsealed, match="passphrase"):
        opened(sealed(b"x"), "another one")


def test_a_head_that_asks_for_endless_memory_is_refused() -> None:
    box = bytearray(sealed(b"x"))
    box[HEAD - 1] = 40
    with pytest.raises(Unsealed, match="head"):
        opened(bytes(box))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
