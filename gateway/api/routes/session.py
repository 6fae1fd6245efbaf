"""Signing in and out, one's own account and sessions, and the claim of a gateway that has no administrator.

The audit entries of signing in and claiming are the identity's own: it alone knows who was meant.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from litestar import Response
from litestar.datastructures import Cookie
from litestar.params import JSONBody, Parameter, QueryParameter

from gateway.api.operation import Asked, Given, Reach, delete, get, note, post, put
from gateway.api.paging import Cursor, Limit, page
from gateway.api.services import Services
from gateway.api.who import COOKIE, must_be_same_origin, shown_by
from gateway.identity import sessions
from gateway.identity.principal import Permission
from gateway.objections import NotThere, Unknown
from holdfast.shapes.common import Page
from holdfast.shapes.session import Account, Claim, PasswordChange, Session, SignedIn, SignIn

OIDC_COOKIE: Final = "__Host-holdfast_oidc"
WantedForm = Annotated[Literal["bearer", "cookie"], QueryParameter(name="form", description="As of create_session.")]
OidcState = Annotated[str, QueryParameter(name="state", max_length=512, description="As it was sent to the provider.")]
OidcCode = Annotated[str, QueryParameter(name="code", max_length=4096, description="What the provider gave.")]
OidcIssuer = Annotated[str, QueryParameter(name="iss", max_length=2048, description="Who answers (RFC 9207).")]
OidcError = Annotated[str, QueryParameter(name="error", max_length=512, description="Why the provider signed nobody in.")]
SessionId = Annotated[str, Parameter(max_length=64, description="Id of the session.")]


@post(
    "/session",
    id="create_session",
    permission=None,
    reach=Reach.PUBLIC,
    tag="session",
    summary="Sign in",
    problems=(401, 403),
    audited=False,
    idempotency=False,
)
async def create_session(services: Given, request: Asked, data: JSONBody[SignIn]) -> Response[SignedIn]:
    """With a name and a password. Each attempt too many doubles the wait (429, Retry-After)."""
    if data.form == "cookie":
        must_be_same_origin(request.scope)
    secret, session = await services.identity.sign_in(data.name, data.password, shown_by(request.scope).address)
    return signed_in(services, secret, session, data.form)


@post(
    "/claim",
    id="create_claim",
    permission=None,
    reach=Reach.PUBLIC,
    tag="session",
    summary="Make the first administrator",
    problems=(403, 409),
    audited=False,
    idempotency=False,
)
async def create_claim(services: Given, request: Asked, data: JSONBody[Claim]) -> Response[SignedIn]:
    """With the code that the gateway said in its log when it was started. There is no default password."""
    if data.form == "cookie":
        must_be_same_origin(request.scope)
    secret, session = await services.identity.claim(data.code, data.name, data.password, shown_by(request.scope).address)
    return signed_in(services, secret, session, data.form)


@get(
    "/session/oidc",
    id="begin_oidc",
    permission=None,
    reach=Reach.PUBLIC,
    tag="session",
    summary="Sign in at the plant's identity provider",
    status=302,
    problems=(404,),
)
async def begin_oidc(services: Given, form: WantedForm = "cookie") -> Response[None]:
    """For browsers: sends them to the provider of the site (OpenID Connect), which sends them back to the callback."""
    begun = await (await services.identity.provider()).begin(form)
    kept = Cookie(key=OIDC_COOKIE, value=begun.binding, path="/", secure=True, httponly=True, samesite="lax", max_age=600)
    return Response(None, status_code=302, headers={"Location": begun.url, "Cache-Control": "no-store"}, cookies=[kept])


@get(
    "/session/oidc/callback",
    id="finish_oidc",
    permission=None,
    reach=Reach.PUBLIC,
    tag="session",
    summary="Come back from the identity provider",
    problems=(401, 403, 404),
)
async def finish_oidc(
    services: Given, request: Asked, oidc_state: OidcState = "", code: OidcCode = "", iss: OidcIssuer = "", error: OidcError = ""
) -> Response[SignedIn]:
    """What the provider's answer proves becomes a session, with the role that the site gives to the person's groups."""
    if error or not code:
        raise Unknown("the identity provider signed nobody in", "begin again: GET /api/v1/session/oidc")
    binding = request.cookies.get(OIDC_COOKIE, "")
    secret, session, form = await services.identity.returned(oidc_state, code, binding, iss, shown_by(request.scope).address)
    answer = signed_in(services, secret, session, form)
    answer.status_code = 200
    return answer


@get("/session", id="get_session", permission=Permission.OWN_ACCOUNT, reach=Reach.OWN, tag="session", summary="Who asks")
async def get_session(services: Given, request: Asked) -> Account:
    """Who asks and what they may do."""
    session = services.identity.session_of(shown_by(request.scope))
    return Account(
        name=request.user.name,
        kind=request.user.kind,
        role=request.user.role.value,
        tenant=request.user.tenant,
        permissions=[each.value for each in Permission if request.user.may(each)],
        session=None if session is None else shown(services, session),
    )


@delete(
    "/session",
    id="delete_session",
    permission=Permission.OWN_ACCOUNT,
    reach=Reach.OWN,
    tag="session",
    summary="Sign out",
    problems=(404,),
    audited=False,
    idempotency=False,
)
async def delete_session(services: Given, request: Asked) -> Response[None]:
    session = services.identity.session_of(shown_by(request.scope))
    if session is None:
        raise NotThere("this request has no session", "a token is revoked: DELETE /api/v1/tokens/{id}")
    services.identity.sign_out(session)
    return Response(None, status_code=204, cookies=[_cookie("", max_age=0)])


@put(
    "/session/password",
    id="change_password",
    permission=Permission.OWN_ACCOUNT,
    reach=Reach.OWN,
    tag="session",
    summary="Change one's own password",
    status=204,
    idempotency=False,
)
async def change_password(services: Given, request: Asked, data: JSONBody[PasswordChange]) -> None:
    """Every other session of the user ends."""
    shown_of = shown_by(request.scope)
    session = services.identity.session_of(shown_of)
    note(request, on=f"user:{request.user.name}")
    await services.identity.accounts.change_password(
        request.user, data.old, data.new, session=session.id if session else "", address=shown_of.address
    )


@get("/sessions", id="list_sessions", permission=Permission.OWN_ACCOUNT, reach=Reach.OWN, tag="session", summary="One's own sessions")
async def list_sessions(services: Given, request: Asked, limit: Limit = 100, cursor: Cursor = None) -> Page[Session]:
    """The oldest first."""
    own = services.identity.accounts.sessions_of(request.user)
    return page_of_sessions(services, own, limit, cursor)


@delete(
    "/sessions/{session:str}",
    id="end_session",
    permission=Permission.OWN_ACCOUNT,
    reach=Reach.OWN,
    tag="session",
    summary="End a session: one's own, or an administrator anybody's",
)
async def end_session(services: Given, request: Asked, session: SessionId) -> None:
    ended = services.identity.accounts.end_session(request.user, session)
    note(request, on=f"user:{ended.principal.name}", detail=f"session {ended.id}")


OPERATIONS: Final = (
    create_session,
    create_claim,
    begin_oidc,
    finish_oidc,
    get_session,
    delete_session,
    change_password,
    list_sessions,
    end_session,
)


def signed_in(services: Services, secret: str, session: sessions.Session, form: str) -> Response[SignedIn]:
    """What is answered to somebody who has signed in: a token, or a cookie, but not both."""
    told = SignedIn(token=secret if form == "bearer" else None, session=shown(services, session))
    cookies = [_cookie(secret, max_age=None)] if form == "cookie" else []
    return Response(told, status_code=201, cookies=cookies, headers={"Cache-Control": "no-store"})


def shown(services: Services, session: sessions.Session) -> Session:
    return Session(
        id=session.id,
        user=session.principal.name,
        via=session.via,
        address=session.address,
        began_ns=session.began_ns,
        left_s=services.identity.sessions.left_s(session),
    )


def page_of_sessions(services: Services, some: list[sessions.Session], limit: int, cursor: str | None) -> Page[Session]:
    return page(some, lambda one: (one.began_ns, one.id), lambda one: shown(services, one), limit=limit, cursor=cursor)


def _cookie(secret: str, max_age: int | None) -> Cookie:
    """Of this host alone, over TLS alone, for no script, with no request that begins elsewhere (RFC 6265bis, 4.1.3.2)."""
    return Cookie(key=COOKIE, value=secret, path="/", secure=True, httponly=True, samesite="strict", max_age=max_age)
