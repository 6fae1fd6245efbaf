"""Certificates: the authority's own and its list of what is revoked, for everybody; issuing, renewing and revoking, for who may.

Who issues a certificate for somebody gives away at most what they have: its role is at most their own, and who was narrowed to a few
permissions gives nothing away.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, Parameter
from litestar.response import Response

from gateway import authority
from gateway.api.operation import Asked, Given, Reach, get, note, post
from gateway.api.paging import Cursor, Limit, page
from gateway.authority.certificates import ns_of
from gateway.authority.request import shown_certificate
from gateway.config.api import Api
from gateway.identity.certificates import Granted
from gateway.identity.principal import Permission, Principal, Role
from gateway.objections import Conflict, NotAllowed, Unavailable
from holdfast.shapes.certificates import (
    Certificate,
    CertificateGrant,
    CertificateRenewal,
    CertificateRequest,
    IssuedCertificate,
    NewCertificateGrant,
    Revocation,
    ServerCertificate,
)
from holdfast.shapes.common import Page

PEM: Final = "application/x-pem-file"
CRL: Final = "application/pkix-crl"
CACHED: Final = {"Cache-Control": "public, max-age=300"}

Form = Annotated[Literal["der", "pem"], Parameter(description="Form of the list.")]
Purpose = Annotated[Literal["principal", "device"] | None, Parameter(description="Only those for people and programs, or for devices.")]
Fingerprint = Annotated[str, Parameter(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the certificate's DER, hexadecimal.")]
Serial = Annotated[str, Parameter(pattern=r"^[0-9a-f]{1,40}$", description="Serial number, hexadecimal, lower case.")]


@get(
    "/authority/certificate",
    id="get_authority_certificate",
    permission=None,
    reach=Reach.PUBLIC,
    tag="certificates",
    summary="The certificate of the gateway's authority, PEM",
    responses={200: ResponseSpec(str, media_type=PEM, description="Whoever trusts it knows the gateway again.", generate_examples=False)},
)
async def get_authority_certificate(services: Given) -> Response[str]:
    return Response(await _authority_pem(services), media_type=PEM, headers=CACHED)


@get(
    "/authority/crl",
    id="get_revocation_list",
    permission=None,
    reach=Reach.PUBLIC,
    tag="certificates",
    summary="What the gateway's authority has revoked (RFC 5280, 5)",
    responses={200: ResponseSpec(bytes, media_type=CRL, description="DER, or PEM where it is asked for.", generate_examples=False)},
    also_given=(PEM,),
)
async def get_revocation_list(services: Given, form: Form = "der") -> Response[bytes]:
    der = await services.certificates.crl()
    if form == "der":
        return Response(der, media_type=CRL, headers=CACHED)
    return Response(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM), media_type=PEM, headers=CACHED)


@get(
    "/authority/api-certificate",
    id="get_api_certificate",
    permission=Permission.SEE_STATUS,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="The certificate that the API shows, and when it ends",
)
async def get_api_certificate(services: Given) -> ServerCertificate:
    return await _server_certificate(services)


@post(
    "/authority/api-certificate/renewal",
    id="renew_api_certificate",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Give the API a new certificate and key, while it runs",
    status=200,
    problems=[409],
)
async def renew_api_certificate(request: Asked, services: Given) -> ServerCertificate:
    """Handshakes that begin afterwards see the new one. One of the site's own is renewed where it was made."""
    options = services.site().api
    if options is None or options.cert_file:
        raise Conflict("the API's certificate is the site's own", "put a new one into its file: it is taken over within a minute")
    before = await _server_certificate(services)
    try:
        await asyncio.to_thread(services.authority.renew_server, options.names)
    except OSError as error:
        raise Unavailable(f"the authority's files cannot be used ({error})", "look at the disk; readings go on") from error
    services.certificates.changed.set()
    after = await _server_certificate(services)
    note(request, on="api", before={"fingerprint": before.fingerprint}, after={"fingerprint": after.fingerprint})
    return after


@get(
    "/certificates",
    id="list_certificates",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="What the gateway's authority has issued",
)
async def list_certificates(
    services: Given,
    purpose: Purpose = None,
    ends_before_ns: Annotated[int | None, Parameter(ge=0, le=2**63 - 1, description="Only those that end before.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Certificate]:
    await services.certificates.open()
    now_ns = services.clock.time_ns()
    some = [each for each in services.certificates.all() if purpose in (None, each.purpose)]
    some = [each for each in some if ends_before_ns is None or each.not_after_ns < ends_before_ns]
    return page(some, lambda each: each.serial, lambda each: shown(each, now_ns), limit=limit, cursor=cursor)


@get(
    "/certificates/{serial:str}",
    id="get_certificate",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="One certificate",
    problems=[404],
)
async def get_certificate(services: Given, serial: Serial) -> Certificate:
    await services.certificates.open()
    return shown(services.certificates.get(serial), services.clock.time_ns())


@post(
    "/certificates",
    id="issue_certificate",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Issue a certificate with which a person or a program enters",
)
async def issue_certificate(request: Asked, services: Given, data: JSONBody[CertificateRequest]) -> IssuedCertificate:
    role = Role(data.role)
    _must_be_given(request.user, role)
    services.identity.accounts.must_be_tenant(data.tenant)
    made = await services.certificates.issue(
        data.csr, purpose="principal", name=data.name, days=data.days, made_by=request.user.called, role=data.role, tenant=data.tenant
    )
    await _grant(services, made)
    note(request, on=f"certificate/{made.serial}", after=_told(made))
    return await issued(services, made)


@post(
    "/certificates/{serial:str}/renewal",
    id="renew_certificate",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Issue a certificate for the same name and role, with a key of its own",
    problems=[404, 409],
)
async def renew_certificate(request: Asked, services: Given, serial: Serial, data: JSONBody[CertificateRenewal]) -> IssuedCertificate:
    """The old one stays good until it ends or is revoked, so that there is time to exchange it."""
    await services.certificates.open()
    old = services.certificates.get(serial)
    if old.purpose != "principal":
        raise Conflict("it is a device's", "POST /api/v1/registry/{device}/certificate/renewal, as the device")
    if old.revoked_ns:
        raise Conflict("it is revoked", "issue a new one")
    _must_be_given(request.user, Role(old.role))
    made = await services.certificates.issue(
        data.csr, purpose="principal", name=old.name, days=data.days, made_by=request.user.called, role=old.role, tenant=old.tenant
    )
    await _grant(services, made)
    note(request, on=f"certificate/{made.serial}", before={"serial": serial}, after=_told(made))
    return await issued(services, made)


@post(
    "/certificates/{serial:str}/revocation",
    id="revoke_certificate",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Make a certificate open nothing any more, at once and for ever",
    status=200,
    problems=[404],
)
async def revoke_certificate(request: Asked, services: Given, serial: Serial, data: JSONBody[Revocation]) -> Certificate:
    await services.certificates.open()
    found = services.certificates.get(serial)
    if found.purpose == "principal":
        await services.identity.open()
        await services.identity.certificates.revoke(found.fingerprint)
    revoked = await services.certificates.revoke(serial, data.reason)
    note(request, on=f"certificate/{serial}", before={"revoked": bool(found.revoked_ns)}, after={"name": found.name, "reason": data.reason})
    return shown(revoked, services.clock.time_ns())


@get(
    "/certificate-grants",
    id="list_certificate_grants",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Who enters with which certificate, whoever has issued it",
)
async def list_certificate_grants(services: Given, limit: Limit = 100, cursor: Cursor = None) -> Page[CertificateGrant]:
    await services.identity.open()
    now_ns = services.clock.time_ns()
    some = sorted(services.identity.certificates.all(), key=lambda each: each.fingerprint)
    return page(some, lambda each: each.fingerprint, lambda each: _grant_shown(each, now_ns), limit=limit, cursor=cursor)


@post(
    "/certificate-grants",
    id="grant_certificate",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Let somebody enter with a certificate of the plant's own authority",
    problems=[409],
)
async def grant_certificate(request: Asked, services: Given, data: JSONBody[NewCertificateGrant]) -> CertificateGrant:
    """The authority must be one of client_ca_file: TLS asks for that, and the certificate alone opens nothing."""
    role = Role(data.role)
    _must_be_given(request.user, role)
    services.identity.accounts.must_be_tenant(data.tenant)
    found = shown_certificate(data.certificate)
    await services.identity.open()
    der, ends_ns = found.public_bytes(Encoding.DER), ns_of(found.not_valid_after_utc)
    granted = await services.identity.certificates.grant(der, data.name, role, data.tenant, ends_ns, request.user.called)
    if granted.revoked_ns:
        raise Conflict("this certificate was taken back, and stays so", "have them make a new one")
    told = _grant_shown(granted, services.clock.time_ns())
    note(request, on=f"certificate/{granted.fingerprint}", after={"name": data.name, "role": data.role, "tenant": data.tenant})
    return told


@post(
    "/certificate-grants/{fingerprint:str}/revocation",
    id="revoke_certificate_grant",
    permission=Permission.MANAGE_CERTIFICATES,
    reach=Reach.GATEWAY,
    tag="certificates",
    summary="Let nobody enter with a certificate any more, at once and for ever",
    status=200,
    problems=[404],
)
async def revoke_certificate_grant(request: Asked, services: Given, fingerprint: Fingerprint) -> CertificateGrant:
    await services.identity.open()
    before = services.identity.certificates.get(fingerprint)
    await services.identity.certificates.revoke(fingerprint)
    note(request, on=f"certificate/{fingerprint}", before={"revoked": bool(before.revoked_ns)}, after={"name": before.name})
    return _grant_shown(services.identity.certificates.get(fingerprint), services.clock.time_ns())


def _grant_shown(each: Granted, now_ns: int) -> CertificateGrant:
    return CertificateGrant(
        fingerprint=each.fingerprint,
        name=each.name,
        role=each.role.value,
        tenant=each.tenant,
        expires_ns=each.expires_ns,
        state="revoked" if each.revoked_ns else "good" if now_ns < each.expires_ns else "ended",
        made_by=each.made_by,
        made_ns=each.made_ns,
        revoked_ns=each.revoked_ns,
    )


def shown(each: authority.Certificate, now_ns: int) -> Certificate:
    return Certificate(
        serial=each.serial,
        fingerprint=each.fingerprint,
        purpose=each.purpose,
        name=each.name,
        role=each.role,
        tenant=each.tenant,
        not_before_ns=each.not_before_ns,
        not_after_ns=each.not_after_ns,
        state=_state(each, now_ns),
        revoked_ns=each.revoked_ns,
        reason=each.reason,
        made_by=each.made_by,
        made_ns=each.made_ns,
    )


async def issued(services: Given, made: authority.Certificate) -> IssuedCertificate:
    return IssuedCertificate(certificate=shown(made, services.clock.time_ns()), pem=made.pem, authority=await _authority_pem(services))


def _state(each: authority.Certificate, now_ns: int) -> Literal["good", "not-yet", "ended", "revoked"]:
    if each.revoked_ns:
        return "revoked"
    return "not-yet" if now_ns < each.not_before_ns else "good" if now_ns < each.not_after_ns else "ended"


def _told(each: authority.Certificate) -> dict[str, str | int]:
    return {"serial": each.serial, "name": each.name, "role": each.role, "tenant": each.tenant, "not_after_ns": each.not_after_ns}


def _must_be_given(user: Principal, role: Role) -> None:
    if role.rank > user.role.rank:
        raise NotAllowed(
            f"{user.called} ({user.role.value}) cannot give more than their own role, as {role.value} is", "ask an administrator"
        )
    if user.scopes is not None:
        raise NotAllowed(f"{user.called} was narrowed to a few permissions, and a certificate would have more", "sign in as a user")


async def _grant(services: Given, made: authority.Certificate) -> None:
    await services.identity.open()
    await services.identity.certificates.grant(made.der, made.name, Role(made.role), made.tenant, made.not_after_ns, made.made_by)


async def _authority_pem(services: Given) -> str:
    await services.certificates.open()
    return services.authority.own.public_bytes(Encoding.PEM).decode()


async def _server_certificate(services: Given) -> ServerCertificate:
    options = services.site().api
    assert options is not None, "it answers"
    found = await asyncio.to_thread(_read, options, services.authority)
    try:
        names = [str(name.value) for name in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
    except x509.ExtensionNotFound:
        names = []
    return ServerCertificate(
        subject=found.subject.rfc4514_string(),
        issuer=found.issuer.rfc4514_string(),
        names=names,
        fingerprint=found.fingerprint(hashes.SHA256()).hex(),
        not_before_ns=round(found.not_valid_before_utc.timestamp()) * 10**9,
        not_after_ns=ns_of(found.not_valid_after_utc),
        own=not options.cert_file,
    )


def _read(options: Api, own: authority.Authority) -> x509.Certificate:
    try:
        file = Path(options.cert_file) if options.cert_file else own.server_files(options.names)[0]
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Unavailable(f"the API's certificate cannot be read ({error})", "look at cert_file of api, or at the disk") from error


OPERATIONS: Final = (
    get_authority_certificate,
    get_revocation_list,
    get_api_certificate,
    renew_api_certificate,
    list_certificates,
    get_certificate,
    issue_certificate,
    renew_certificate,
    revoke_certificate,
    list_certificate_grants,
    grant_certificate,
    revoke_certificate_grant,
)
