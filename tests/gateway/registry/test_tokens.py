"""Device tokens: what we sign a stranger's library reads, and what we did not sign opens nothing."""

from __future__ import annotations

import base64
import hmac
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.registry.tokens import AUDIENCE, Claims, claims_of, signed

KEY: Final = ec.generate_private_key(ec.SECP256R1())
CLAIMS: Final = Claims(sub="press-7", jti="a", iat=1000, exp=2000, iss="urn:holdfast:gateway")
TOKEN: Final = signed(CLAIMS, KEY)


def theirs(key: ec.EllipticCurvePrivateKey = KEY) -> ECKey:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ECKey.import_key(pem)


def packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_another_library_reads_our_tokens_and_we_read_its() -> None:
    told = jwt.decode(TOKEN, theirs(), algorithms=["ES256"])
    assert told.claims == {"sub": "press-7", "jti": "a", "iat": 1000, "exp": 2000, "iss": "urn:holdfast:gateway", "aud": AUDIENCE}
    assert told.header == {"alg": "ES256", "typ": "JWT"}
    assert claims_of(TOKEN, KEY.public_key(), 1500) == CLAIMS


@pytest.mark.parametrize("now", [2000, 2001, 600, 1e12])
def test_a_token_is_good_in_its_time_alone(now: float) -> None:
    assert claims_of(TOKEN, KEY.public_key(), now) is None


def test_other_algorithms_keys_and_audiences_open_nothing() -> None:
    """Also the two old tricks: no algorithm at all, and our public key taken for a shared secret."""
    claims = {"sub": "press-7", "jti": "a", "iat": 1000, "exp": 2000, "iss": "x", "aud": AUDIENCE}
    public = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, body = packed(b'{"alg":"HS256","typ":"JWT"}'), TOKEN.split(".")[1]
    forged = [
        f"{head}.{body}.{packed(hmac.digest(public, f'{head}.{body}'.encode(), 'sha256'))}",
        jwt.encode({"alg": "ES256", "typ": "JWT"}, claims, theirs(ec.generate_private_key(ec.SECP256R1()))),
        jwt.encode({"alg": "ES256", "typ": "JWT"}, {**claims, "aud": "other"}, theirs()),
        jwt.encode({"alg": "ES256", "typ": "JWT"}, {key: value for key, value in claims.items() if key != "exp"}, theirs()),
        f"eyJhbGciOiJub25lIn0.{body}.",
        f"{TOKEN.split('.')[0]}.{body}.",
        f"{TOKEN}.x",
        TOKEN + "A" * 4000,
        "",
        "..",
    ]
    for token in forged:
        assert claims_of(token, KEY.public_key(), 1500) is None


@given(st.integers(0, len(TOKEN) - 1), st.characters(min_codepoint=1, max_codepoint=0x2FF))
def test_no_changed_letter_goes_unseen(at: int, letter: str) -> None:
    changed = TOKEN[:at] + letter + TOKEN[at + 1 :]
    found = claims_of(changed, KEY.public_key(), 1500)
    assert found is None or (changed == TOKEN or at == len(TOKEN) - 1), "the last letter of base64 has bits that say nothing"
