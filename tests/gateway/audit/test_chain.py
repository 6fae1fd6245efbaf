"""The chain of the audit log: what is changed, removed or put in is found, and where."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest

from gateway.audit.chain import NOTHING, Entry, Head, digest_of, line_of, verify


def chain(count: int) -> list[bytes]:
    head, lines = Head(), []
    for number in range(1, count + 1):
        entry = Entry(
            number=number,
            previous=head.digest,
            time_ns=number,
            who="user:anna",
            action="create_user",
            outcome="done",
            after={"b": 1, "a": "ü"},
        )
        lines.append(line_of(entry))
        head = Head(number, digest_of(lines[-1]))
    return lines


def test_a_chain_that_nobody_touched_holds() -> None:
    verdict = verify(line + b"\n" for line in chain(50))
    assert verdict.holds
    assert (verdict.entries, verdict.first, verdict.head.number) == (50, 1, 50)


def test_a_line_is_canonical_json_and_its_digest_is_that_of_its_bytes() -> None:
    """So that sha256sum(1) and any JSON parser are enough to check it."""
    first, second = chain(2)
    assert json.dumps(json.loads(second), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == second
    assert json.loads(second)["previous"] == hashlib.sha256(first).hexdigest()
    assert json.loads(first)["previous"] == NOTHING
    tool = shutil.which("sha256sum")
    assert tool, "coreutils are everywhere"
    said = subprocess.run([tool], input=first, capture_output=True, check=True, timeout=20).stdout.decode().split()[0]
    assert json.loads(second)["previous"] == said


@pytest.mark.parametrize(
    ("touch", "number", "what"),
    [
        (lambda lines: lines.__setitem__(19, lines[19].replace(b"anna", b"eva_")), 21, "was changed"),
        (lambda lines: lines.pop(19), 21, "entries 20 to 20 are missing"),
        (lambda lines: lines.insert(20, lines[10]), 11, "entry 21 should stand here"),
        (lambda lines: lines.__setitem__(slice(9, 11), [lines[10], lines[9]]), 11, "entries 10 to 10 are missing"),
        (lambda lines: lines.__setitem__(19, b"\x00" * 80), 0, "no entry"),
        (lambda lines: lines.__delitem__(slice(0, 5)), 6, "entries 1 to 5 are missing"),
    ],
)
def test_what_was_touched_is_found_and_where(touch: object, number: int, what: str) -> None:
    lines = chain(50)
    touch(lines)  # type: ignore[operator]  # one of the functions above
    verdict = verify(lines, Head())
    assert not verdict.holds
    assert verdict.broken[0].number == number
    assert what in verdict.broken[0].what


def test_every_single_flipped_bit_is_found() -> None:
    """But for those in the last line, whose digest is the head's."""
    lines = chain(4)
    whole = verify(lines, Head()).head
    for at in range(4):
        for place in range(len(lines[at])):
            touched = bytearray(lines[at])
            touched[place] ^= 1 << (place % 8)
            verdict = verify([*lines[:at], bytes(touched), *lines[at + 1 :]], Head())
            assert not verdict.holds or verdict.head != whole


def test_a_part_of_a_chain_holds_by_itself() -> None:
    """An export that begins in the middle can be checked, from its first entry on."""
    assert verify(chain(50)[20:]).holds
    assert not verify(chain(50)[20:], Head(19, "")).holds


def test_garbage_is_no_error() -> None:
    for rubbish in (b"", b"\n", b"{}", b"[]", b"\xff\xfe", b"null", b'{"number":1e400}', b"[" * 100_000):
        assert not verify([rubbish]).holds
