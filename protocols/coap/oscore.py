"""OSCORE (RFC 8613): messages sealed end to end with keys that both sides were given. The cipher work is aiocoap's; nothing else is.

What is ours: keys come from secret references; the sender sequence number survives restarts and power loss (appendix B.1.1: the
file always names a number that was never used, and is written before the numbers below it are); after a restart the replay
window is unknown, so the first request of a peer is answered with a challenge (appendix B.1.2, Echo). aiocoap's own message
decoder is kept away from bytes of strangers: it remembers every option number that it ever saw, and raises what it likes.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import aiocoap  # type: ignore[import-untyped] # it has no marker
import msgspec
from aiocoap import oscore as library
from aiocoap.message import Direction  # type: ignore[import-untyped] # as above

from protocols.coap.config import Oscore
from protocols.coap.message import Broken, Message, Option, decode_rest, encode_rest, uint
from protocols.contract import Misfit

AHEAD: Final = 1000
"""Numbers that one write of the file allows: what a power cut skips, and how rarely the disk is waited for."""
RENEW: Final = 200
"""Numbers left when the next are allowed, off the event loop."""
LEAST_SECRET: Final = 16
HIGHEST_OPTION: Final = 512
"""Options inside a sealed message have numbers up to here: all that are assigned for use."""


class Sealed(Exception):
    """A message cannot be opened: wrong keys, a replay, or no OSCORE at all. The text says which."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
        """With which a server answers (8.2)."""


class Challenge(Exception):
    """A request cannot be known to be fresh: ``answer`` asks the peer to prove it (B.1.2)."""

    def __init__(self, answer: Message) -> None:
        super().__init__("the peer is asked to prove that its request is fresh")
        self.answer = answer


class Numbers:
    """The sender sequence numbers of one context, in a file of their own. One process at a time: the file is locked."""

    def __init__(self, folder: str, fingerprint: str, where: str) -> None:
        self._path = Path(folder) / f"oscore-{fingerprint}"
        self._where = where
        self._file = -1
        self.next = 0
        self.allowed = 0
        """The first number that may not be used yet."""
        self._writing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Take up where the last life may have ended at most. Raises Misfit."""
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = os.pread(self._file, 64, 0).decode("ascii", "replace").strip()
        except BlockingIOError as error:
            self.close()
            text = f"another process uses OSCORE's numbers at {self._path}"
            raise Misfit(f"{self._where}: {text}: stop the gateway first, or give each its own state_folder and keys") from error
        except OSError as error:
            self.close()
            raise Misfit(
                f"{self._where}: OSCORE's numbers at {self._path}: {error.strerror}: give a state_folder of this gateway's alone"
            ) from error
        if text and not text.isdecimal():
            self.close()
            raise Misfit(f"{self._where}: {self._path} holds no number: new keys are needed (a number must never be used twice)")
        self.next = self.allowed = int(text or "0")

    async def ready(self) -> None:
        """Return when a number may be used. Raises Misfit where the disk does not take it."""
        if self._writing is not None and self._writing.done():
            writing, self._writing = self._writing, None
            if self.next >= self.allowed:
                writing.result()
            else:
                writing.exception()  # there are numbers left: it is tried again
        if self.next + RENEW >= self.allowed and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._allow(self.allowed + AHEAD))
        if self.next >= self.allowed and self._writing is not None:
            await asyncio.shield(self._writing)

    async def _allow(self, limit: int) -> None:
        try:
            await asyncio.to_thread(self._store, limit)
        except OSError as error:
            raise Misfit(f"{self._where}: OSCORE's numbers at {self._path}: {error.strerror}: nothing is sent without them") from error
        self.allowed = limit

    def _store(self, limit: int) -> None:
        """In place: 20 digits lie in one sector, which is written whole or not at all."""
        os.pwrite(self._file, f"{limit:020}\n".encode(), 0)
        os.fsync(self._file)

    async def leave(self) -> None:
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class _Keys(library.CanProtect, library.CanUnprotect, library.SecurityContextUtils):  # type: ignore[misc] # as above
    """A context of aiocoap's, with keys and numbers from us."""

    def __init__(self, options: Oscore, secret: bytes, numbers: Numbers) -> None:
        self.alg_aead = library.algorithms[options.algorithm]
        self.hashfun = library.hashfunctions[options.hash]
        self.sender_id = bytes.fromhex(options.sender_id)
        self.recipient_id = bytes.fromhex(options.recipient_id)
        self.id_context = None if options.id_context is None else bytes.fromhex(options.id_context)
        self.derive_keys(bytes.fromhex(options.master_salt), secret)
        self.echo_recovery = secrets.token_bytes(8)
        self.recipient_replay_window = library.ReplayWindow(library.DEFAULT_WINDOWSIZE, lambda: None)
        self._numbers = numbers

    @property
    def sender_sequence_number(self) -> int:
        return self._numbers.next

    @sender_sequence_number.setter
    def sender_sequence_number(self, value: int) -> None:
        self._numbers.next = value

    def post_seqnoincrease(self) -> None:
        assert self._numbers.next <= self._numbers.allowed, "a number must be on disk before it is used"

    def _post_decrypt_checks(self, aad: object, plaintext: bytes, protected_message: object, request_id: object) -> None:
        """Before the library reads what was sealed: it must be a message, and have no options that nobody knows."""
        try:
            options, _ = decode_rest(plaintext, 1)
        except Broken as error:
            raise library.DecodeError(str(error)) from None
        if any(number > HIGHEST_OPTION for number, _ in options):
            raise library.DecodeError("an option has a number that is not assigned")
        for number, value in options:
            if number in _TEXT:
                _utf8(value)
            elif number in _NUMBERS and len(value) > 4:
                raise library.DecodeError("a number has more than 4 bytes")


_TEXT: Final = (Option.URI_HOST, Option.URI_PATH, Option.URI_QUERY, Option.PROXY_URI, Option.PROXY_SCHEME, 8, 20)
_NUMBERS: Final = (Option.CONTENT_FORMAT, Option.ACCEPT)


def _utf8(value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError:
        raise library.DecodeError("a text is no UTF-8") from None


class Binding:
    """What ties a response to its request."""

    def __init__(self, inner: library.RequestIdentifiers) -> None:
        self._inner = inner

    @property
    def inner(self) -> library.RequestIdentifiers:
        return self._inner


class Context:
    """One security context while it is in use. ``open`` it, ``await ready()`` before each ``seal``, ``leave`` it."""

    def __init__(self, options: Oscore, folder: str, where: str) -> None:
        """Raises Misfit, SecretMissing."""
        self._where = where
        try:
            secret = bytes.fromhex(options.master_secret.read().strip())
        except ValueError:
            raise Misfit(f"{where}: oscore.master_secret is not hexadecimal: write its bytes as two digits each") from None
        if len(secret) < LEAST_SECRET:
            raise Misfit(f"{where}: oscore.master_secret is shorter than {LEAST_SECRET} bytes: use a random one")
        self.numbers = Numbers(folder, fingerprint(options, secret), where)
        self._keys = _Keys(options, secret, self.numbers)
        self.recipient_id = self._keys.recipient_id
        self.id_context = self._keys.id_context

    def open(self) -> None:
        """Raises Misfit."""
        self.numbers.open()

    async def ready(self) -> None:
        await self.numbers.ready()

    async def leave(self) -> None:
        await self.numbers.leave()

    def seal(self, message: Message, answers: Binding | None = None) -> tuple[Message, Binding]:
        """``message`` sealed; a response is bound to the request that ``answers`` came from. Raises Misfit where numbers ran out."""
        inner = aiocoap.Message(code=message.code, payload=message.payload)
        inner.opt.decode(encode_rest(message.options, b""))
        try:
            outer, binding = self._keys.protect(inner, answers.inner if answers else None)
        except library.ContextUnavailable:
            raise Misfit(f"{self._where}: OSCORE's sequence numbers are used up: give both sides new keys") from None
        options, _ = decode_rest(outer.opt.encode())
        return msgspec.structs.replace(message, code=int(outer.code), options=options, payload=outer.payload), Binding(binding)

    def open_sealed(self, message: Message, binding: Binding | None = None) -> tuple[Message, Binding]:
        """What ``message`` holds. Its Observe option, if any, is the number by which notifications are ordered (4.1.3.5.2).

        Raises Sealed, or Challenge for a request whose freshness is not known.
        """
        option = message.first(Option.OSCORE)
        if option is None:
            raise Sealed("it is not sealed with OSCORE", 0x81)
        hint_of(option)
        outer = aiocoap.Message(code=message.code, payload=message.payload)
        outer.opt.oscore = option
        if message.first(Option.OBSERVE) is not None:
            outer.opt.observe = message.uint(Option.OBSERVE, 3) or 0
        outer.direction = Direction.INCOMING
        try:
            inner, binding_after = self._keys.unprotect(outer, binding.inner if binding else None)
        except library.ReplayErrorWithEcho as error:
            echo = Message(code=0x81, options=((int(Option.ECHO), error.echo),))
            raise Challenge(self.seal(echo, Binding(error.request_id))[0]) from None
        except library.ReplayError:
            raise Sealed("it was seen before (replay)", 0x81) from None
        except (library.ProtectionInvalid, ValueError, AssertionError) as error:
            raise Sealed(f"it cannot be opened with these keys ({type(error).__name__})", 0x80) from None
        order = inner.opt.observe
        inner.opt.observe = None
        options, _ = decode_rest(inner.opt.encode())
        opened = msgspec.structs.replace(message, code=int(inner.code), options=options, payload=inner.payload)
        if order is not None:  # the library says -1 for the answer to a registration, which comes before every notification
            opened = msgspec.structs.replace(opened, options=opened.but((Option.OBSERVE, uint(order + 1))))
        return opened, Binding(binding_after)


def hint_of(option: bytes) -> tuple[bytes | None, bytes | None]:
    """Key id and key id context of an OSCORE option (6.1). Raises Sealed where it is none."""
    if not option:
        return None, None
    flags, at = option[0], 1 + (option[0] & 7)
    if flags & 0xE0 or flags & 7 > 5 or at > len(option):
        raise Sealed("its OSCORE option is broken", 0x82)
    context: bytes | None = None
    if flags & 0x10:
        if at >= len(option) or at + 1 + option[at] > len(option):
            raise Sealed("its OSCORE option is broken", 0x82)
        context = option[at + 1 : at + 1 + option[at]]
        at += 1 + len(context)
    return (option[at:] if flags & 8 else None), context


def fingerprint(options: Oscore, secret: bytes) -> str:
    """Names the file of a context's numbers: the same keys find the same file. Tells nothing of the secret."""
    parts = (options.sender_id, options.recipient_id, options.master_salt, options.id_context or "-", options.algorithm, options.hash)
    digest = hashlib.blake2b("|".join(parts).lower().encode(), key=hashlib.sha256(secret).digest(), digest_size=12)
    return digest.hexdigest()
