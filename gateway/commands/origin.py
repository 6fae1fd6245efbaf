"""Who asks for a command, and by which way it came. Pure."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from gateway.identity.principal import Role

Kind = Literal["api", "uplink", "face", "shadow", "rule", "local"]
_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind)}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command comes from."""

    kind: Kind
    """``local``: a shell on the gateway itself."""
    name: str = ""
    """Of the uplink or the face."""
    who: str = ""
    """``user:anna``, a client's address; empty where nobody can say."""
    role: Role | None = None
    """What whoever asks is; None for what has no role, such as a PLC."""

    @property
    def called(self) -> str:
        """What rules call it: the name of an uplink or face, else the kind."""
        return self.name or self.kind

    @property
    def is_remote(self) -> bool:
        """It comes over an uplink: its clock, and whether it is the first copy, have to be proven."""
        return self.kind == "uplink"

    def __str__(self) -> str:
        """For people and records: ``face scada, 192.0.2.7``."""
        way = f"{self.kind} {self.name}" if self.name else self.kind
        return f"{way}, {self.who}" if self.who else way


def origin_of(source: str) -> Origin:
    """The origin that a text such as ``face scada, 192.0.2.7`` says; ``local`` where it begins with no kind."""
    way, _, who = source.partition(", ")
    kind, _, name = way.partition(" ")
    return Origin(kind=_KINDS[kind], name=name, who=who) if kind in _KINDS else Origin(kind="local", who=source)
