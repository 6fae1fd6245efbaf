"""What is wrong in who may enter: tenants that are there twice, groups of a tenant that is not there, limits that never count. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from gateway.config.document import show
from gateway.config.model import Site
from protocols.contract import Problem

CALLBACK: Final = "/api/v1/session/oidc/callback"


def problems(site: Site) -> Iterator[Problem]:
    """With their paths."""
    names = Counter(tenant.name for tenant in site.tenants)
    for at, tenant in enumerate(site.tenants):
        if names[tenant.name] > 1:
            yield Problem(
                show(("tenants", at, "name")), f"{names[tenant.name]} tenants are called {tenant.name!r}", "give each its own name"
            )
    if site.api is None:
        if site.tenants:
            yield Problem("tenants", "there are tenants and no api: nobody enters", "add api, or remove tenants", "warning")
        return
    access = site.api.access
    if access.session_idle_s > access.session_longest_s:
        message = f"it is longer than a session lives ({access.session_longest_s:g} s), and so never counts"
        yield Problem("api.access.session_idle_s", message, "set it lower, or session_longest_s higher", "warning")
    limits = site.api.limits
    for one, all_ in (("connections_per_address", limits.connections), ("requests_per_address", limits.requests)):
        if getattr(limits, one) > all_:
            yield Problem(f"api.limits.{one}", f"it is more than from everywhere together ({all_})", "set it lower", "warning")
    yield from _oidc(site, set(names))


def _oidc(site: Site, tenants: set[str]) -> Iterator[Problem]:
    if site.api is None or site.api.oidc is None:
        return
    oidc = site.api.oidc
    if not oidc.redirect_uri.endswith(CALLBACK):
        yield Problem("api.oidc.redirect_uri", "the provider would send people where nobody takes them in", f"let it end with {CALLBACK}")
    if "openid" not in oidc.scopes:
        yield Problem("api.oidc.scopes", "without openid the provider says nothing of who somebody is", "add openid")
    for at, each in enumerate(oidc.roles):
        if each.tenant and each.tenant not in tenants:
            message = f"no tenant is called {each.tenant!r}"
            yield Problem(show(("api", "oidc", "roles", at, "tenant")), message, f"there is: {', '.join(sorted(tenants)) or 'none'}")
