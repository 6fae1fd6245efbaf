"""References to secrets. A configuration names where a secret lies and never holds it.

``read()`` is called at the moment of use, so that a rotated secret is picked up at the next connection. Neither the
value nor its length appears in any message.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import msgspec

MAX_SECRET_BYTES: Final = 64 * 1024


class SecretMissing(Exception):
    """The place a secret reference names holds none. The text says where and what to do."""


def _read_file(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        if len(raw) > MAX_SECRET_BYTES:
            raise SecretMissing(f"{what} is larger than {MAX_SECRET_BYTES} bytes: point it at the secret's own file")
        return raw.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise SecretMissing(f"{what} cannot be read (not UTF-8 text): check that it is the secret's own file") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise SecretMissing(f"{what} cannot be read ({reason}): check that it exists and that the service may read it") from None


class FromFile(msgspec.Struct, frozen=True, tag_field="from", tag="file", forbid_unknown_fields=True):
    """A file that holds the secret alone; one line end at its end is ignored."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, description="File that holds the secret.")]

    def read(self) -> str:
        return _read_file(Path(self.path), f"secret file {self.path}")


class FromEnv(msgspec.Struct, frozen=True, tag_field="from", tag="env", forbid_unknown_fields=True):
    """An environment variable."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256, description="Environment variable that holds the secret.")]

    def read(self) -> str:
        value = os.environ.get(self.name)
        if value is None:
            raise SecretMissing(f"environment variable {self.name} is not set: set it in the service's environment")
        return value


class FromCredential(msgspec.Struct, frozen=True, tag_field="from", tag="credential", forbid_unknown_fields=True):
    """A systemd credential (``LoadCredential=`` of the unit)."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,255}$", description="Name of the systemd credential.")]

    def read(self) -> str:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise SecretMissing(f"credential {self.name}: no CREDENTIALS_DIRECTORY; add LoadCredential={self.name} to the unit")
        return _read_file(Path(folder) / self.name, f"credential {self.name}")


Secret = FromFile | FromEnv | FromCredential
