"""What somebody brings: a certification request (PKCS #10, RFC 2986), or a certificate of another authority, judged. Pure.

Its key is taken, if it is good and whoever asks has it. Nothing else is: names and extensions in it are wishes of somebody whom we do
not know, and the operation says for whom the certificate is.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.objections import Unfit

LONGEST: Final = 16 * 1024
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
LEAST_RSA: Final = 2048
MOST_RSA: Final = 8192
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_ADVICE: Final = "make one by openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout device.key -subj /CN=device"


def key_of(pem: str) -> PublicKey:
    """The key that the request (PEM) is for. Raises Unfit, saying what is wrong."""
    if len(pem) > LONGEST:
        raise Unfit(f"the request is longer than {LONGEST} bytes", _ADVICE)
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        is_proven = request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Unfit(f"this is no certification request that can be used ({str(error)[:200] or type(error).__name__})", _ADVICE) from None
    if not is_proven:
        raise Unfit("the request is not signed by the key that it is for", _ADVICE)
    return _good(key)


def shown_certificate(pem: str) -> x509.Certificate:
    """The certificate (PEM) of a person or a program that somebody else's authority has issued. Raises Unfit, saying what is wrong."""
    advice = "send the PEM of the one certificate that they show, without its key"
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        is_authority = [each for each in found if _is_authority(each)]
    except ValueError as error:
        raise Unfit(f"this is no certificate that can be read ({str(error)[:200]})", advice) from None
    if len(found) != 1:
        raise Unfit(f"these are {len(found)} certificates", advice)
    if is_authority:
        raise Unfit("this is an authority's certificate, not that of somebody who enters", advice)
    return found[0]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _good(key: object) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in CURVES:
            return key
        raise Unfit(f"the request's key lies on the curve {key.curve.name}", f"take one of {', '.join(CURVES)}, or Ed25519")
    if isinstance(key, rsa.RSAPublicKey):
        if LEAST_RSA <= key.key_size <= MOST_RSA and key.public_numbers().e >= 65537:
            return key
        raise Unfit(f"the request's RSA key has {key.key_size} bits", f"take {LEAST_RSA} to {MOST_RSA}, and 65537 for its exponent")
    raise Unfit(f"the request's key is a {type(key).__name__}", "take ECDSA (P-256), Ed25519 or RSA")
