"""The device registry: the life of each device, and what it shows to prove who it is.

A tenant sees and changes its own devices, and registers such as its patterns match. Enrolling and renewing are for devices
themselves, who are nobody to the API: they prove themselves by a secret that is good once, or by the certificate that they have.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.serialization import Encoding
from litestar.params import JSONBody, Parameter, QueryParameter

from gateway import authority
from gateway.api.operation import Asked, Given, Reach, Seen, delete, get, note, post
from gateway.api.paging import Cursor, Limit, page
from gateway.identity.principal import Permission
from gateway.identity.sight import no_device
from gateway.registry import Entry, Step
from gateway.registry.life import LifeState
from gateway.registry.tracking import TARGET
from holdfast.shapes.common import Page
from holdfast.shapes.registry import (
    Credential,
    Credentials,
    Decommissioning,
    DeviceCertificate,
    DeviceHealth,
    DeviceLife,
    DeviceRenewal,
    DeviceToken,
    DeviceTokenWish,
    Enrolment,
    EnrolmentRequest,
    EnrolmentWish,
    LifeStateName,
    LifeStep,
    NewDevice,
    RegisteredDevice,
    StateChange,
)

DeviceOf = Annotated[str, Parameter(max_length=128, description="Name of the device.")]
StateOf = Annotated[LifeStateName | None, QueryParameter(name="state", description="Only devices in this state.")]
CredentialOf = Annotated[str, Parameter(max_length=64, description="A certificate's serial, or a token's id.")]


@get(
    "/registry",
    id="list_registered_devices",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="registry",
    summary="All devices, configured or registered, and how they are",
)
async def list_registered_devices(
    services: Given, sight: Seen, in_state: StateOf = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[RegisteredDevice]:
    entries = [services.registry.get(name) for name in services.registry.names() if sight.sees(name)]
    some = [each for each in entries if in_state in (None, each.state.value)]
    return page(some, lambda each: each.name, lambda each: _shown(services, each), limit=limit, cursor=cursor)


@get(
    "/registry/{device:str}",
    id="get_registered_device",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="registry",
    summary="One device and its life",
    problems=[404],
)
async def get_registered_device(services: Given, sight: Seen, device: DeviceOf) -> DeviceLife:
    sight.must_see(device)
    entry = _entry(services, device)
    steps = await services.registry.steps(device)
    return DeviceLife(device=_shown(services, entry), steps=[_step_shown(each) for each in steps])


@post(
    "/registry",
    id="register_device",
    permission=Permission.COMMISSION,
    reach=Reach.DEVICES,
    tag="registry",
    summary="Register a device that will push, or one anew that was decommissioned",
    problems=[404, 409],
)
async def register_device(request: Asked, services: Given, sight: Seen, data: JSONBody[NewDevice]) -> RegisteredDevice:
    sight.must_see(data.name)
    entry = await services.registry.register(data.name, request.user.called, data.reason)
    note(request, on=f"device/{data.name}", after={"state": entry.state.value}, detail=data.reason)
    return _shown(services, entry)


@post(
    "/registry/{device:str}/state",
    id="change_device_state",
    permission=Permission.COMMISSION,
    reach=Reach.DEVICES,
    tag="registry",
    summary="Suspend a device, let it go on, or take it a step further",
    status=200,
    problems=[404, 409],
)
async def change_device_state(
    request: Asked, services: Given, sight: Seen, device: DeviceOf, data: JSONBody[StateChange]
) -> RegisteredDevice:
    """Of a suspended device nothing is taken: it is not scanned, and what it pushes is refused. Its tags are bad, out of service."""
    sight.must_see(device)
    before = _entry(services, device)
    entry = await services.registry.change(device, LifeState(data.state), request.user.called, data.reason)
    _note(request, before, entry, data.reason)
    return _shown(services, entry)


@post(
    "/registry/{device:str}/decommission",
    id="decommission_device",
    permission=Permission.CONFIGURE,
    reach=Reach.DEVICES,
    tag="registry",
    summary="End the life of a device: its credentials are dead at once",
    status=200,
    problems=[404],
)
async def decommission_device(
    request: Asked, services: Given, sight: Seen, device: DeviceOf, data: JSONBody[Decommissioning]
) -> RegisteredDevice:
    """Nothing of it is taken any more. To use the name again, register it anew."""
    sight.must_see(device)
    before = _entry(services, device)
    entry = await services.registry.decommission(device, request.user.called, data.reason, wipe=data.history == "wipe")
    _note(request, before, entry, data.reason)
    return _shown(services, entry)


@get(
    "/registry/{device:str}/credentials",
    id="list_device_credentials",
    permission=Permission.COMMISSION,
    reach=Reach.DEVICES,
    tag="registry",
    summary="Certificates and tokens that a device was given",
    problems=[404],
)
async def list_device_credentials(services: Given, sight: Seen, device: DeviceOf) -> Credentials:
    sight.must_see(device)
    _entry(services, device)
    now_ns = services.clock.time_ns()
    found = [_certificate_shown(each, now_ns) for each in await services.registry.certificates_of(device)]
    for each in services.registry.tokens_of(device):
        state = _state(each.revoked_ns, each.expires_ns, now_ns)
        found.append(
            Credential(id=each.id, type="token", made_ns=each.made_ns, made_by=each.made_by, expires_ns=each.expires_ns, state=state)
        )
    return Credentials(items=found)


@delete(
    "/registry/{device:str}/credentials/{credential:str}",
    id="revoke_device_credential",
    permission=Permission.COMMISSION,
    reach=Reach.DEVICES,
    tag="registry",
    summary="Make a device's certificate or token good no longer, at once",
    problems=[404],
)
async def revoke_device_credential(request: Asked, services: Given, sight: Seen, device: DeviceOf, credential: CredentialOf) -> None:
    sight.must_see(device)
    _entry(services, device)
    await services.registry.revoke(device, credential)
    note(request, on=f"device/{device}", after={"revoked": credential})


@post(
    "/registry/{device:str}/enrolment",
    id="invite_device",
    permission=Permission.COMMISSION,
    reach=Reach.DEVICES,
    tag="registry",
    summary="A secret with which the device gets a certificate, once",
    problems=[404, 409],
    idempotency=False,
)
async def invite_device(request: Asked, services: Given, sight: Seen, device: DeviceOf, data: JSONBody[EnrolmentWish]) -> Enrolment:
    sight.must_see(device)
    _entry(services, device)
    secret, expires_ns = await services.registry.invite(device, data.lifetime_s)
    note(request, on=f"device/{device}", after={"expires_ns": expires_ns})
    return Enrolment(enrolment_token=secret, expires_ns=expires_ns)


@post(
    "/registry/{device:str}/token",
    id="issue_device_token",
    permission=Permission.COMMISSION,
    reach=Reach.DEVICES,
    tag="registry",
    summary="A token (JWT) with which the device pushes",
    problems=[404, 409],
    idempotency=False,
)
async def issue_device_token(
    request: Asked, services: Given, sight: Seen, device: DeviceOf, data: JSONBody[DeviceTokenWish]
) -> DeviceToken:
    sight.must_see(device)
    _entry(services, device)
    text, token = await services.registry.issue_token(device, data.days * 86_400.0, request.user.called)
    note(request, on=f"device/{device}", after={"token": token.id, "expires_ns": token.expires_ns})
    return DeviceToken(id=token.id, token=text, expires_ns=token.expires_ns)


@post(
    "/registry/{device:str}/certificate",
    id="enrol_device",
    permission=None,
    reach=Reach.PUBLIC,
    tag="registry",
    summary="For a device: its certificate, for the enrolment token that it was given",
    problems=[401, 409],
    idempotency=False,
)
async def enrol_device(request: Asked, services: Given, device: DeviceOf, data: JSONBody[EnrolmentRequest]) -> DeviceCertificate:
    """The same answer for a device that is not there and for a token that is wrong, used or has ended."""
    made = await services.registry.enrol(device, data.enrolment_token, data.csr, data.days)
    note(request, on=f"device/{device}", after={"serial": made.serial}, detail="by the device itself")
    return _device_certificate(services, made)


@post(
    "/registry/{device:str}/certificate/renewal",
    id="renew_device_certificate",
    permission=None,
    reach=Reach.PUBLIC,
    tag="registry",
    summary="For a device: a new certificate, over a connection with the old one",
    problems=[401, 409],
    idempotency=False,
)
async def renew_device_certificate(request: Asked, services: Given, device: DeviceOf, data: JSONBody[DeviceRenewal]) -> DeviceCertificate:
    shown = (request.scope.get("state") or {}).get("certificate", b"")
    made = await services.registry.renew(device, shown, data.csr, data.days)
    note(request, on=f"device/{device}", after={"serial": made.serial}, detail="by the device itself")
    return _device_certificate(services, made)


def _entry(services: Given, device: str) -> Entry:
    """As what is not seen: the two look alike."""
    if device not in services.registry.names():
        raise no_device(device)
    return services.registry.get(device)


def _note(request: Asked, before: Entry, after: Entry, reason: str) -> None:
    note(request, on=f"device/{after.name}", before={"state": before.state.value}, after={"state": after.state.value}, detail=reason)


def _shown(services: Given, entry: Entry) -> RegisteredDevice:
    return RegisteredDevice(
        name=entry.name,
        kind=entry.kind,
        state=_named(entry.state.value),
        since_ns=entry.since_ns,
        reason=entry.reason,
        by=entry.by,
        configured=services.latest.device(entry.name) is not None,
        wiped_ns=entry.wiped_ns,
        health=_health(services, entry.name),
    )


def _health(services: Given, device: str) -> DeviceHealth | None:
    track = services.registry.tracking.of(device)
    if track is None:
        return None
    return DeviceHealth(
        last_seen_ns=track.last_seen_ns,
        lost=track.lost,
        lost_since_ns=track.lost_since_ns if track.lost else 0,
        good_now=track.good_now,
        good_day=track.good_day,
        target=TARGET,
        budget_left=track.budget_left,
        covered_s=services.registry.tracking.covered_s(track),
    )


def _step_shown(step: Step) -> LifeStep:
    return LifeStep(before=step.before, after=_named(step.after), time_ns=step.time_ns, by=step.by, reason=step.reason)


def _named(state: str) -> LifeStateName:
    return LifeState(state).value


def _state(revoked_ns: int, expires_ns: int, now_ns: int) -> Literal["good", "ended", "revoked"]:
    if revoked_ns:
        return "revoked"
    return "good" if now_ns < expires_ns else "ended"


def _certificate_shown(each: authority.Certificate, now_ns: int) -> Credential:
    state = _state(each.revoked_ns, each.not_after_ns, now_ns)
    return Credential(
        id=each.serial, type="certificate", made_ns=each.made_ns, made_by=each.made_by, expires_ns=each.not_after_ns, state=state
    )


def _device_certificate(services: Given, made: authority.Certificate) -> DeviceCertificate:
    own = services.authority.own.public_bytes(Encoding.PEM).decode()
    return DeviceCertificate(serial=made.serial, not_after_ns=made.not_after_ns, pem=made.pem, authority=own)


OPERATIONS: Final = (
    list_registered_devices,
    get_registered_device,
    register_device,
    change_device_state,
    decommission_device,
    list_device_credentials,
    revoke_device_credential,
    invite_device,
    issue_device_token,
    enrol_device,
    renew_device_certificate,
)
