"""The TLS of the API: its own certificate, whose clients' certificates may be shown, and what is revoked; all of it while it runs.

What changes makes a new context, which handshakes that begin afterwards are given: one that serves is never changed, for OpenSSL does
not keep apart who changes a context and who shakes hands with it (SSL_CTX_use_certificate(3)). Sessions are
not resumed, for that would skip the look at the list. With authorities of the site's own and no list of theirs, nobody's list is
looked at in the handshake (OpenSSL asks for all or none): a certificate that is revoked is refused by the identity then, for each
request is held against what was granted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Final

import structlog

from gateway.api.services import Services
from gateway.config.api import Api
from gateway.objections import Unavailable
from protocols.contract import Misfit

log = structlog.get_logger("holdfast.api")

LOOK_S: Final = 60.0
"""Files of the site's own are looked at so often, and so often it is seen whether the own certificate is to be renewed."""

_Stamp = tuple[int, int]


class Trust:
    def __init__(self, options: Api, services: Services) -> None:
        self._options = options
        self._services = services
        self._seen: dict[Path, _Stamp] = {}
        self._now: ssl.SSLContext | None = None

    @property
    def now(self) -> ssl.SSLContext:
        """What a handshake that begins now is given. ``take_over`` comes first."""
        assert self._now is not None, "take_over comes first"
        return self._now

    def take_over(self) -> None:
        """Make ``now`` of the files as they are. Raises Misfit where one cannot be used: then nothing changes. For a thread."""
        self._now = self._context()
        self._is_new()

    def _context(self) -> ssl.SSLContext:
        try:
            context = self._with_own()
            authority = self._services.authority
            context.load_verify_locations(authority.certificate_file)
            if self._options.client_ca_file:
                context.load_verify_locations(self._options.client_ca_file)
            if self._lists:
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
                for file in self._lists:
                    context.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            text = f"the authorities of the API's clients cannot be used: {error}: check client_ca_file and client_crl_file of api"
            raise Misfit(text) from error
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        return context

    async def keep_fresh(self) -> None:
        """Until cancelled: take over what changes. What cannot be used is said, and the one before goes on serving."""
        changed = self._services.certificates.changed
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()
            changed.clear()
            try:
                await self._services.certificates.refresh()
                await asyncio.to_thread(self._look)
            except (Misfit, Unavailable, OSError) as error:
                log.error("certificate_not_taken_over", trouble=str(error), advice="the one before goes on serving")

    @property
    def _lists(self) -> list[Path]:
        own = self._services.authority.crl_file
        if self._options.client_crl_file:
            return [own, Path(self._options.client_crl_file)]
        return [] if self._options.client_ca_file else [own]

    def _pair(self) -> tuple[Path, Path]:
        if self._options.cert_file:
            return Path(self._options.cert_file), Path(self._options.key_file or self._options.cert_file)
        return self._services.authority.server_files(self._options.names)

    def _with_own(self) -> ssl.SSLContext:
        """A context with the API's own certificate. Raises Misfit."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._load_own(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        password = self._options.key_password.read() if self._options.key_password else ""  # never None: OpenSSL would ask on the terminal
        try:
            chain, key = self._pair()
            context.load_cert_chain(chain, key, password=lambda: password)
        except (OSError, ssl.SSLError) as error:
            said = [self._options.cert_file or "the own one", self._options.key_file]
            where = ", ".join(each for each in said if each)
            advice = "give a PEM certificate and its own key in cert_file and key_file of api"
            raise Misfit(f"the API's certificate ({where}) cannot be used: {error}: {advice}") from error

    def _look(self) -> None:
        self._pair()  # the own one is renewed where it is due
        if self._is_new():
            self._now = self._context()
            log.info("certificate_taken_over")

    def _is_new(self) -> bool:
        """Whether a file is another one than when this was last asked."""
        now = {file: _stamp(file) for file in (*self._pair(), *self._lists)}
        before, self._seen = self._seen, now
        return now != before


def _stamp(file: Path) -> _Stamp:
    state = file.stat()
    return state.st_mtime_ns, state.st_ino
