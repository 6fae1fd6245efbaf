"""Tokens with which devices that push show who they are: JWTs (RFC 7519) signed with ES256 (RFC 7518, 3.4). Pure.

The gateway makes them and the gateway alone reads them. So the header is one string, and whatever has another, whose algorithm is
``none`` or any other, is no token of ours before anything of it is believed.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

AUDIENCE: Final = "holdfast-device"
LONGEST: Final = 2048
_BYTES: Final = 32


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says."""

    sub: str
    """The device."""
    jti: str
    iat: int
    exp: int
    """Seconds since 1970, as ``iat``."""
    iss: str
    aud: str = AUDIENCE


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


HEADER: Final = _base64url(b'{"alg":"ES256","typ":"JWT"}')


def signed(claims: Claims, key: ec.EllipticCurvePrivateKey) -> str:
    """The token, in its compact form (RFC 7515, 7.1)."""
    content = f"{HEADER}.{_base64url(msgspec.json.encode(claims))}"
    r, s = decode_dss_signature(key.sign(content.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{content}.{_base64url(r.to_bytes(_BYTES, 'big') + s.to_bytes(_BYTES, 'big'))}"


def claims_of(token: str, key: ec.EllipticCurvePublicKey, now_s: float) -> Claims | None:
    """What ``token`` says, where we have signed it, it is for us, and its time is now; None otherwise."""
    parts = token.split(".", 3) if len(token) <= LONGEST else []
    if len(parts) != 3 or parts[0] != HEADER:
        return None
    try:
        signature = _decoded(parts[2])
        if len(signature) != 2 * _BYTES:
            return None
        r, s = int.from_bytes(signature[:_BYTES], "big"), int.from_bytes(signature[_BYTES:], "big")
        key.verify(encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
        claims = msgspec.json.decode(_decoded(parts[1]), type=Claims)
    except (ValueError, binascii.Error, InvalidSignature):  # msgspec's and Unicode's errors are ValueErrors
        return None
    return claims if claims.aud == AUDIENCE and claims.iat - 300 <= now_s < claims.exp else None


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
