"""Digest access authentication as a client (RFC 7616; RFC 2069 for servers that offer no qop). Pure, but for the client's nonce.

Of several challenges the strongest that we know is answered, in whatever order they come. A challenge that makes no sense
is none: the request then stays refused.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

LONGEST_CHALLENGE: Final = 8192
_PART: Final = re.compile(r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s,"=]+))?""")
"""A scheme, or a parameter with its value (RFC 9110, 11.6.1)."""


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha512_256(data: bytes) -> str:
    return hashlib.new("sha512_256", data).hexdigest()


HASHES: Final[dict[str, Callable[[bytes], str]]] = {"sha-512-256": _sha512_256, "sha-256": _sha256, "md5": _md5}
"""The strongest first."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server wants to see proven."""

    realm: str
    nonce: str
    algorithm: str
    """As the server wrote it."""
    qop: str
    """``auth``, ``auth-int``, or empty for a server of RFC 2069."""
    opaque: str | None
    hides_user: bool

    @property
    def digest(self) -> Callable[[bytes], str]:
        return HASHES[self.algorithm.lower().removesuffix("-sess")]

    @property
    def is_session(self) -> bool:
        return self.algorithm.lower().endswith("-sess")


def strongest(headers: Sequence[str]) -> Challenge | None:
    """The strongest digest challenge in WWW-Authenticate headers; None where there is none that can be answered."""
    found = [challenge for parameters in _digests(", ".join(headers)[:LONGEST_CHALLENGE]) if (challenge := _challenge(parameters))]
    order = list(HASHES)
    return min(found, key=lambda one: order.index(one.algorithm.lower().removesuffix("-sess")), default=None)


def _digests(text: str) -> list[dict[str, str]]:
    """The parameters of each challenge whose scheme is Digest."""
    challenges: list[tuple[str, dict[str, str]]] = []
    at = 0
    while (part := _PART.match(text, at)) is not None:
        at = part.end()
        if part[2] is None:
            challenges.append((part[1].lower(), {}))
        elif challenges:
            challenges[-1][1].setdefault(part[1].lower(), _unquoted(part[2]))
    return [parameters for scheme, parameters in challenges if scheme == "digest"]


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _challenge(parameters: dict[str, str]) -> Challenge | None:
    algorithm = parameters.get("algorithm", "MD5")
    offered = [one.strip().lower() for one in parameters.get("qop", "").split(",") if one.strip()]
    qop = next((one for one in ("auth", "auth-int") if one in offered), "")
    known = algorithm.lower().removesuffix("-sess") in HASHES and (qop or not offered)
    if not known or not parameters.get("nonce") or not all(text.isascii() and text.isprintable() for text in parameters.values()):
        return None
    return Challenge(
        parameters.get("realm", ""),
        parameters["nonce"],
        algorithm,
        qop,
        parameters.get("opaque"),
        parameters.get("userhash", "").lower() == "true",
    )


class Prover:
    """Answers challenges for one user. Keeps the last one, so that further requests need no refusal first."""

    def __init__(self, username: str, password: str) -> None:
        self._username, self._password = username, password
        self._challenge: Challenge | None = None
        self._count = 0

    def learn(self, headers: Sequence[str], shown: str) -> bool:
        """A request that showed ``shown`` (a proof, or nothing) was refused with these WWW-Authenticate headers: whether it is
        worth trying again with a new :meth:`proof`. It is not where this very challenge was answered: then the password is wrong."""
        challenge = strongest(headers)
        if challenge is None:
            return False
        if self._challenge is None or challenge.nonce != self._challenge.nonce:
            self._challenge, self._count = challenge, 0
        return f'nonce="{_escaped(challenge.nonce)}"' not in shown

    def proof(self, method: str, target: str, body: bytes) -> str:
        """The Authorization header for a request to ``target`` (path and query, as sent); empty before the first challenge."""
        if self._challenge is None:
            return ""
        self._count += 1
        return answer(self._challenge, self._username, self._password, method, target, body, self._count, secrets.token_hex(16))


def answer(challenge: Challenge, username: str, password: str, method: str, target: str, body: bytes, count: int, client_nonce: str) -> str:
    """The Authorization header (RFC 7616, 3.4). ``count`` is how often this nonce was used, this time included."""
    digest = challenge.digest

    def hashed(*parts: str) -> str:
        return digest(":".join(parts).encode())

    secret = hashed(username, challenge.realm, password)
    if challenge.is_session:
        secret = hashed(secret, challenge.nonce, client_nonce)
    asked = hashed(method, target, digest(body)) if challenge.qop == "auth-int" else hashed(method, target)
    number = f"{count:08x}"
    if challenge.qop:
        response = hashed(secret, challenge.nonce, number, client_nonce, challenge.qop, asked)
    else:
        response = hashed(secret, challenge.nonce, asked)
    shown_name = hashed(username, challenge.realm) if challenge.hides_user else username
    fields = [
        f'username="{_escaped(shown_name)}"' if shown_name.isascii() else f"username*=UTF-8''{quote(shown_name, safe='')}",
        f'realm="{_escaped(challenge.realm)}"',
        f'nonce="{_escaped(challenge.nonce)}"',
        f'uri="{target}"',
        f'response="{response}"',
        f"algorithm={challenge.algorithm}",
    ]
    if challenge.opaque is not None:
        fields.append(f'opaque="{_escaped(challenge.opaque)}"')
    if challenge.qop:
        fields += [f"qop={challenge.qop}", f"nc={number}", f'cnonce="{client_nonce}"']
    if challenge.hides_user:
        fields.append("userhash=true")
    return "Digest " + ", ".join(fields)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
