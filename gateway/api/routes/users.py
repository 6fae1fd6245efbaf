"""Users of the gateway. For administrators of the whole gateway; one's own account is in ``session``."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Final

import msgspec
from litestar.params import JSONBody, Parameter
from msgspec import UNSET

from gateway.api.conditional import must_match
from gateway.api.operation import Asked, Given, Reach, delete, get, note, patch, post, put
from gateway.api.paging import Cursor, Limit, page
from gateway.api.routes.session import page_of_sessions
from gateway.api.services import Services
from gateway.identity import users
from gateway.identity.principal import Permission, Role
from holdfast.shapes.common import Page
from holdfast.shapes.session import Session
from holdfast.shapes.users import NewPassword, NewUser, User, UserChange

UserOf = Annotated[str, Parameter(max_length=64, description="Name of the user.")]
_ADMINISTRATORS: Final = {"permission": Permission.MANAGE_USERS, "reach": Reach.GATEWAY, "tag": "users"}


@get("/users", id="list_users", summary="Who may sign in", **_ADMINISTRATORS)
async def list_users(services: Given, limit: Limit = 100, cursor: Cursor = None) -> Page[User]:
    """Users by name."""
    return page(services.identity.users.all(), attrgetter("name"), lambda one: shown(services, one), limit=limit, cursor=cursor)


@post("/users", id="create_user", summary="Add a user", problems=(409,), idempotency=False, **_ADMINISTRATORS)
async def create_user(services: Given, request: Asked, data: JSONBody[NewUser]) -> User:
    """Nobody gives more than they have themselves."""
    note(request, on=f"user:{data.name}", after={"role": data.role, "tenant": data.tenant})
    user = await services.identity.accounts.add_user(request.user, data.name, data.password, Role(data.role), data.tenant)
    return shown(services, user)


@get("/users/{user:str}", id="get_user", summary="One user", **_ADMINISTRATORS)
async def get_user(services: Given, user: UserOf) -> User:
    return shown(services, services.identity.users.get(user))


@patch("/users/{user:str}", id="change_user", summary="Change role or tenant, shut out, let in", problems=(409, 412), **_ADMINISTRATORS)
async def change_user(services: Given, request: Asked, user: UserOf, data: JSONBody[UserChange]) -> User:
    """The user's sessions end, and tokens that reach further than the user does then. The last administrator stays one."""
    before = services.identity.users.get(user)
    must_match(request, shown(services, before))
    to = {name: value for name, value in msgspec.structs.asdict(data).items() if value is not UNSET}
    note(request, on=f"user:{user}", before={name: getattr(before, name) for name in to}, after=to)
    changed = await services.identity.accounts.change_user(
        request.user,
        user,
        role=None if data.role is UNSET else Role(data.role),
        tenant=None if data.tenant is UNSET else data.tenant,
        disabled=None if data.disabled is UNSET else data.disabled,
    )
    return shown(services, changed)


@delete("/users/{user:str}", id="delete_user", summary="Remove a user", problems=(409,), **_ADMINISTRATORS)
async def delete_user(services: Given, request: Asked, user: UserOf) -> None:
    """Sessions and tokens of the user end; tokens that belong to the gateway go on. The last administrator stays."""
    before = services.identity.users.get(user)
    note(request, on=f"user:{user}", before={"role": before.role.value, "tenant": before.tenant})
    await services.identity.accounts.remove_user(request.user, user)


@put("/users/{user:str}/password", id="set_password", summary="Set a user's password", status=204, idempotency=False, **_ADMINISTRATORS)
async def set_password(services: Given, request: Asked, user: UserOf, data: JSONBody[NewPassword]) -> None:
    """The user's sessions end; if they tried too often, they may try again."""
    note(request, on=f"user:{user}")
    await services.identity.accounts.set_password(request.user, user, data.password)


@post("/users/{user:str}/unlock", id="unlock_user", summary="Let a user who tried too often try again", status=200, **_ADMINISTRATORS)
async def unlock_user(services: Given, request: Asked, user: UserOf) -> User:
    note(request, on=f"user:{user}")
    return shown(services, services.identity.accounts.unlock(request.user, user))


@get("/users/{user:str}/sessions", id="list_user_sessions", summary="Sessions of a user", **_ADMINISTRATORS)
async def list_user_sessions(services: Given, request: Asked, user: UserOf, limit: Limit = 100, cursor: Cursor = None) -> Page[Session]:
    """The oldest first. Those who signed in elsewhere (OIDC) are called oidc~NAME."""
    return page_of_sessions(services, services.identity.accounts.sessions_of(request.user, user), limit, cursor)


@delete("/users/{user:str}/sessions", id="end_user_sessions", summary="End every session of a user", **_ADMINISTRATORS)
async def end_user_sessions(services: Given, request: Asked, user: UserOf) -> None:
    ended = services.identity.sessions.end_of(user)
    note(request, on=f"user:{user}", detail=f"{ended} sessions ended")


OPERATIONS: Final = (
    list_users,
    create_user,
    get_user,
    change_user,
    delete_user,
    set_password,
    unlock_user,
    list_user_sessions,
    end_user_sessions,
)


def shown(services: Services, user: users.User) -> User:
    return User(
        name=user.name,
        role=user.role.value,
        tenant=user.tenant,
        disabled=user.disabled,
        locked=services.identity.attempts.locked(user.name),
        made_by=user.made_by,
        made_ns=user.made_ns,
        password_ns=user.password_ns,
    )
