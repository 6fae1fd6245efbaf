"""Does a message come from who shares our secret, and just now? Pure.

A signature is HMAC-SHA256 (RFC 2104) over the time and the body, compared in constant time. Where the style signs a time, a message
outside the window is refused, and its signature is remembered as long as its delivery's name: posted again, it is a repeat.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from protocols.http import config
from protocols.http.config import SenderAuth
from protocols.secret import SecretMissing

MOST_SIGNATURES: Final = 8
"""In one message: senders send two while a secret is exchanged."""
LONGEST_HEADER: Final = 2048
LONGEST_ID: Final = 255
LEAST_SECRET: Final = 16


@dataclass(frozen=True, slots=True)
class Style:
    """Where a kind of sender writes what."""

    signature: str
    timestamp: str
    id: str


STYLES: Final[dict[str, Style]] = {
    "plain": Style("X-Signature", "X-Timestamp", "X-Delivery-Id"),
    "github": Style("X-Hub-Signature-256", "", "X-GitHub-Delivery"),
    "stripe": Style("Stripe-Signature", "", ""),
    "standard": Style("webhook-signature", "webhook-timestamp", "webhook-id"),
}
BEARER_ID: Final = "X-Delivery-Id"

_TIME: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
"""Seconds since 1970; a sender that posts the same more than once a second writes a fraction."""


Known = Callable[[str], bool]


class Unproven(Exception):
    """The message does not prove where it comes from. The text says what is wrong with it, for our own operator alone."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What a message says about itself."""

    signatures: list[bytes]
    time: str
    id: str


class Verifier:
    """Judges messages of one sender."""

    def __init__(self, auth: SenderAuth, id_header: str) -> None:
        """Reads the secret. Raises SecretMissing where it is not there, or too short to be one."""
        self._auth = auth
        if isinstance(auth, config.Registered):
            self._key, self._style = b"", Style("Authorization", "", BEARER_ID)
        elif isinstance(auth, config.Token):
            self._key, self._style = _long_enough(auth.token.read().encode()), Style("Authorization", "", BEARER_ID)
        else:
            self._key, self._style = _key(auth), STYLES[auth.style]
        self._id_header = (id_header or self._style.id).lower()

    @property
    def needs_body(self) -> bool:
        """Whether nothing can be said before the body is there."""
        return isinstance(self._auth, config.Signed)

    def verify(self, headers: Mapping[str, str], body: bytes, now_ns: int, known: Known = lambda _token: False) -> tuple[str, ...]:
        """Names under which this delivery is to be remembered, maybe none. ``headers`` by lower-case name. ``known`` says of a token
        (empty where none is shown) whether the registry knows it, or the certificate beside it, as the sender's. Raises Unproven."""
        delivery = headers.get(self._id_header, "")[:LONGEST_ID] if self._id_header else ""
        names = (f"id {delivery}",) if delivery else ()
        if isinstance(self._auth, config.Registered):
            scheme, _, token = headers.get("authorization", "")[:LONGEST_HEADER].partition(" ")
            if not known(token.strip() if scheme.lower() == "bearer" else ""):
                raise Unproven("it shows no token or certificate that the registry gave this device and that is good")
            return names
        if isinstance(self._auth, config.Token):
            self._check_token(headers.get("authorization", ""))
            return names
        said = self._said(headers, self._auth)
        if self._auth.style != "github":
            _check_time(said.time, self._auth.window_s, now_ns)
        right = hmac.digest(self._key, self._signed(said, body), "sha256")
        if not any([hmac.compare_digest(right, each) for each in said.signatures]):  # a list: each is compared, whichever is right
            raise Unproven("its signature is wrong")
        return (*names, f"signature {right.hex()}") if self._auth.style != "github" else names

    def _check_token(self, said: str) -> None:
        scheme, _, token = said[:LONGEST_HEADER].partition(" ")
        if not said:
            raise Unproven("it has no Authorization header")
        ours, theirs = (hashlib.sha256(each).digest() for each in (self._key, token.strip().encode(errors="replace")))
        if not hmac.compare_digest(ours, theirs) or scheme.lower() != "bearer":
            raise Unproven("its token is wrong")

    def _said(self, headers: Mapping[str, str], auth: config.Signed) -> _Said:
        name = auth.signature_header or self._style.signature
        text = headers.get(name.lower(), "")
        if not text:
            raise Unproven(f"it has no header {name}")
        if len(text) > LONGEST_HEADER:
            raise Unproven(f"its header {name} is too long")
        if auth.style == "stripe":
            parts = [part.strip().partition("=") for part in text.split(",")]
            time = next((value for key, _, value in parts if key == "t"), "")
            return _Said(_hex(value for key, _, value in parts if key == "v1"), time, "")
        time_header = auth.timestamp_header or self._style.timestamp
        time = headers.get(time_header.lower(), "") if time_header else ""
        if auth.style == "standard":
            parts = [part.partition(",") for part in text.split(" ")]
            return _Said(_base64(value for key, _, value in parts if key == "v1"), time, headers.get(self._style.id, ""))
        return _Said(_hex([text.removeprefix("sha256=")]), time, "")

    def _signed(self, said: _Said, body: bytes) -> bytes:
        """What the signature is over."""
        assert isinstance(self._auth, config.Signed)
        if self._auth.style == "github":
            return body
        head = f"{said.id}.{said.time}." if self._auth.style == "standard" else f"{said.time}."
        return head.encode(errors="replace") + body


def _key(auth: config.Signed) -> bytes:
    text = auth.secret.read()
    if auth.style == "standard":
        try:
            return _long_enough(base64.b64decode(text.removeprefix("whsec_"), validate=True))
        except binascii.Error:
            raise SecretMissing(
                "the webhook's secret is no base64, which Standard Webhooks wants: copy it as the sender shows it"
            ) from None
    return _long_enough(text.encode())


def _long_enough(key: bytes) -> bytes:
    if len(key) < LEAST_SECRET:
        raise SecretMissing(
            f"the webhook's secret is shorter than {LEAST_SECRET} bytes, which can be guessed: make one by openssl rand -hex 32"
        )
    return key


def _check_time(text: str, window_s: float, now_ns: int) -> None:
    if _TIME.fullmatch(text) is None:
        raise Unproven("it has no time, in seconds since 1970")
    off_s = float(text) - now_ns / 1e9
    if abs(off_s) > window_s:
        raise Unproven(f"its time is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} ours: an old message, or a wrong clock")


def _hex(texts: Iterable[str]) -> list[bytes]:
    return _decoded(texts, bytes.fromhex)


def _base64(texts: Iterable[str]) -> list[bytes]:
    return _decoded(texts, lambda text: base64.b64decode(text, validate=True))


def _decoded(texts: Iterable[str], decode: Callable[[str], bytes]) -> list[bytes]:
    """The first few of ``texts``; what cannot be decoded is no signature."""
    found: list[bytes] = []
    for text in itertools.islice(texts, MOST_SIGNATURES):
        with contextlib.suppress(ValueError):
            found.append(decode(text))
    return found
