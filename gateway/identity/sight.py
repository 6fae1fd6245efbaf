"""Which devices somebody may know of. The one place where tenants are kept apart, below every query.

Whoever reads or writes for a principal asks a :class:`Sight` for each device, and treats what it does not see as not there.
A device's name is matched with the patterns of the tenant (``*`` and ``?``), case and all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from gateway.config.api import Tenant
from gateway.identity.principal import Principal
from gateway.objections import NotThere


@dataclass(frozen=True, slots=True)
class Sight:
    """What one principal sees. ``pattern`` None sees everything."""

    pattern: re.Pattern[str] | None = None
    tenant: str = field(default="")

    @property
    def whole(self) -> bool:
        """True for whoever sees the whole gateway, and not only devices of a tenant."""
        return self.pattern is None

    def sees(self, device: str) -> bool:
        return self.pattern is None or self.pattern.fullmatch(device) is not None

    def must_see(self, device: str) -> None:
        """Raises NotThere, as for a device that does not exist."""
        if not self.sees(device):
            raise no_device(device)


EVERYTHING = Sight()


def sight_of(principal: Principal, tenants: Iterable[Tenant]) -> Sight:
    """What ``principal`` sees. A tenant that the site no longer has sees nothing."""
    if not principal.tenant:
        return EVERYTHING
    devices = [pattern for tenant in tenants if tenant.name == principal.tenant for pattern in tenant.devices]
    return Sight(re.compile("|".join(translate(pattern) for pattern in devices) or r"(?!)"), principal.tenant)


def no_device(name: str) -> NotThere:
    """What is said of a device that is not there, and of one that whoever asks may not know of."""
    return NotThere(f"no device is called {name!r}", "GET /api/v1/devices lists them")
