"""The encryption of a backup: a stream in chunks, each of which proves itself, its place, and whether it is the last.

ChaCha20-Poly1305 in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015): the nonce of a chunk is a random prefix, its
number, and a byte that is 1 in the last. So a chunk that is changed, left out, put elsewhere, or missing at the end is noticed before
its content is used, and memory holds one chunk. The key comes from a passphrase by scrypt (RFC 7914). The head is authenticated with
each chunk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC: Final = b"holdfast-backup1"
_HEAD: Final = Struct("<16s16s7sB")
"""Magic, salt, prefix of the nonces, cost (log2 of scrypt's N)."""
COST: Final = 16
"""64 MiB of memory for a moment."""
_COSTS: Final = range(14, 19)
"""A foreign file may not have us take more than 256 MiB."""
CHUNK: Final = 64 * 1024
TAG: Final = 16
MOST_CHUNKS: Final = 1 << 32
LEAST_PASSPHRASE: Final = 8


class Unsealed(Exception):
    """The file cannot be opened, or is not as it was written. The text says which."""


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Seal:
    """Encrypts what is written to it into ``out``; ``close`` writes the last chunk, without which nothing counts."""

    def __init__(self, out: Sink, passphrase: str, *, cost: int = COST) -> None:
        self._out = out
        self._head = _HEAD.pack(MAGIC, os.urandom(16), os.urandom(7), cost)
        self._cipher = _cipher(self._head, passphrase)
        self._number = 0
        self._waiting = bytearray()
        out.write(self._head)

    def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) > CHUNK:  # one more byte: the last chunk is known by its seal alone
            self._put(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def close(self) -> None:
        self._put(bytes(self._waiting), last=True)

    def _put(self, chunk: bytes, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._head, self._number, last=last), chunk, self._head))
        self._number += 1


class Opened:
    """Gives back what was sealed, chunk by chunk. Raises Unsealed."""

    def __init__(self, read: Callable[[int], bytes], passphrase: str) -> None:
        head = read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            raise Unsealed("this is no encrypted backup")
        if head[-1] not in _COSTS:
            raise Unsealed("its head was changed")
        self._read, self._head = read, head
        self._cipher = _cipher(head, passphrase)
        self._number = 0
        self._ahead = read(CHUNK + TAG)
        self._rest = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """``size`` bytes, or what is left at the end."""
        parts, missing = [], size
        while missing:
            if not self._rest:
                if self._ended:
                    break
                self._rest = self._next()
                continue
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def _next(self) -> bytes:
        chunk, self._ahead = self._ahead, self._read(CHUNK + TAG)
        self._ended = not self._ahead
        try:
            content = self._cipher.decrypt(_nonce(self._head, self._number, last=self._ended), chunk, self._head)
        except InvalidTag:
            if self._number:
                raise Unsealed("the file was changed or cut off after it was made: take another backup") from None
            raise Unsealed("the passphrase is wrong, or the file was changed or cut off") from None
        self._number += 1
        return content


def is_sealed(start: bytes) -> bool:
    """Whether a file that begins so is an encrypted backup."""
    return start.startswith(MAGIC)


def _cipher(head: bytes, passphrase: str) -> ChaCha20Poly1305:
    _, salt, _, cost = _HEAD.unpack(head)
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(passphrase.encode()))


def _nonce(head: bytes, number: int, *, last: bool) -> bytes:
    if number >= MOST_CHUNKS:
        raise Unsealed("it is larger than 256 TiB")
    return bytes(_HEAD.unpack(head)[2]) + number.to_bytes(4, "big") + bytes([last])
