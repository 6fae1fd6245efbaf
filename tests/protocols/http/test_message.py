"""What messages say beside their values: waiting, packing, redirects."""

from __future__ import annotations

import gzip
import zlib

import pytest
from yarl import URL

from protocols.http.message import LONGEST_HOLD_S, Body, Broken, redirected, retry_after_s, shown

NOW_NS = 1_700_000_000_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("0", 0.0), ("7", 7.0), (" 120 ", 120.0), ("99999999999999999999", LONGEST_HOLD_S), ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0), ("Tue Nov 14 22:13:25 2023", 5.0), ("Mon, 13 Nov 2023 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_HOLD_S),
        ("", None), ("-5", None), ("soon", None), ("1e9", None), ("٧", None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_how_long_to_wait(text: str, wait_s: float | None) -> None:
    assert retry_after_s(text, NOW_NS) == wait_s


def packed(content: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return packer.compress(content) + packer.flush()


CONTENT = b'{"power": 20}' * 50


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("", CONTENT),
        ("identity", CONTENT),
        ("GZIP", gzip.compress(CONTENT)),
        ("deflate", packed(CONTENT, 15)),
        ("deflate", packed(CONTENT, -15)),
    ],
)
def test_bodies_are_unpacked_whole_and_byte_by_byte(encoding: str, raw: bytes) -> None:
    for step in (len(raw), 1, 7):
        body = Body(encoding, len(CONTENT))
        for at in range(0, len(raw), step):
            body.take(raw[at : at + step])
        assert body.whole() == CONTENT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_body_that_ends_early_is_broken_wherever_it_ends(encoding: str) -> None:
    raw = gzip.compress(CONTENT) if encoding == "gzip" else packed(CONTENT, 15)
    for end in range(1, len(raw)):
        body = Body(encoding, 10_000)
        body.take(raw[:end])
        with pytest.raises(Broken, match="too early"):
            body.whole()


def test_nothing_grows_beyond_the_limit() -> None:
    """A bomb is stopped when it has given one byte more than it may, and a plain body too."""
    bomb = packed(b" " * 50_000_000, 31)
    body = Body("gzip", 100_000)
    with pytest.raises(Broken, match="when it is unpacked"):
        body.take(bomb)
    with pytest.raises(Broken, match="max_bytes"):
        Body("", 10).take(b"x" * 11)
    with pytest.raises(Broken, match="max_bytes"):
        Body("gzip", 10).take(b"x" * 11)


def test_what_was_not_asked_for_is_refused() -> None:
    with pytest.raises(Broken, match="not asked for"):
        Body("br\x1b[2J", 10)
    with pytest.raises(Broken, match="follows"):
        Body("gzip", 1000).take(gzip.compress(b"a") + b"b")


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/", "http://device.example.com:81/", "https://device.example.com/", "//evil.example.com/x", "http://u:p@device.example.com/",
        "file:///etc/passwd", "javascript:1", "", "/a\r\nX: y", "/é", "/" + "x" * 5000, "http://[::1", "http://device.example.com@evil.example.com/",
    ],
)  # fmt: skip
def test_redirects_lead_nowhere_else(location: str) -> None:
    with pytest.raises(Broken):
        redirected(URL("http://device.example.com/a/b"), location)


@pytest.mark.parametrize(
    ("location", "there"),
    [("/c", "/c"), ("c?d=1", "/a/c?d=1"), ("http://device.example.com/x", "/x"), ("HTTP://DEVICE.example.com:80/x", "/x")],
)
def test_redirects_within_the_host_are_followed(location: str, there: str) -> None:
    assert redirected(URL("http://device.example.com/a/b"), location).raw_path_qs == there


def test_what_a_peer_says_is_fit_for_a_log() -> None:
    assert shown("a\r\nlevel=info \x1b[2J\x07é" + "x" * 500) == "a??level=info ?[2J??" + "x" * 60 + "..."
