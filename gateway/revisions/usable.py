"""Whether the secrets and certificates of what a change starts can be used here and now. Reads files; slow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.config import model
from gateway.config.check import structs
from gateway.config.compare import Change
from gateway.config.document import show
from protocols.contract import Misfit, Problem
from protocols.secret import FromCredential, FromEnv, FromFile, SecretMissing
from protocols.tls import ServerTls, Tls, client_context, server_context

_MEND = "put it there, and apply again; nothing was changed"


def troubles(site: model.Site, change: Change) -> list[Problem]:
    """What cannot be used of the parts of ``site`` that ``change`` starts. No text holds a secret."""
    found: list[Problem] = []
    for key, parts in (("connections", change.connections), ("uplinks", change.uplinks), ("faces", change.faces)):
        for at, options in enumerate(getattr(site, key)):
            if options.name not in parts.unchanged:
                found.extend(_of(options, (key, at)))
    if "api" in change.sections and site.api is not None:
        found.extend(_of(site.api, ("api",)))
    return found


def _of(options: msgspec.Struct, at: tuple[str | int, ...]) -> Iterator[Problem]:
    for path, struct in structs(options, at):
        try:
            _use(struct)
        except (SecretMissing, Misfit) as error:
            yield Problem(show(path), str(error), _MEND)


def _use(struct: Any) -> None:  # Any: whatever a configuration is made of
    match struct:
        case FromFile() | FromEnv() | FromCredential():
            struct.read()
        case Tls():
            client_context(struct)
        case ServerTls():
            server_context(struct)
