"""Each operation of the API as a function that says what to ask. Made from the API by ``python tools/client.py``."""

from __future__ import annotations

from typing import Any, Literal

from holdfast.client.ask import Ask, Download, ask, download
from holdfast.shapes.audit import AuditEntry, AuditVerdict
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
from holdfast.shapes.commands import Command, LockOut, NewCommand, NewLockOut
from holdfast.shapes.common import Page
from holdfast.shapes.connections import Connection, ConnectionOptions
from holdfast.shapes.devices import Device, Tag
from holdfast.shapes.diagnostics import ClockStatus, Job, NumberWish, ScanWish, TraceWish
from holdfast.shapes.gateway import Gateway, Health
from holdfast.shapes.graphql import GraphqlAnswer, GraphqlQuery
from holdfast.shapes.history import Buckets, BucketsAsked, Lines, LinesAsked, Samples
from holdfast.shapes.journal import Journal, JournalEntry, Ledger, Verification
from holdfast.shapes.registry import (
    Credentials,
    Decommissioning,
    DeviceCertificate,
    DeviceLife,
    DeviceRenewal,
    DeviceToken,
    DeviceTokenWish,
    Enrolment,
    EnrolmentRequest,
    EnrolmentWish,
    NewDevice,
    RegisteredDevice,
    StateChange,
)
from holdfast.shapes.repairs import PutOffWish, Repair, RepairDone
from holdfast.shapes.revisions import (
    Applied,
    ApplyDocument,
    Configuration,
    ConfirmRevision,
    Drift,
    Plan,
    Revision,
    RevisionDetail,
    RollBack,
)
from holdfast.shapes.session import Account, Claim, PasswordChange, Session, SignedIn, SignIn
from holdfast.shapes.shadow import Shadow, ShadowChange, ShadowSummary
from holdfast.shapes.templates import Template, TemplateSummary
from holdfast.shapes.tokens import IssuedToken, NewToken, Token
from holdfast.shapes.uplinks import Face, Uplink
from holdfast.shapes.users import NewPassword, NewUser, User, UserChange
from holdfast.shapes.values import Reading


def list_audit_entries(
    *,
    who: str | None = None,
    action: str | None = None,
    on: str | None = None,
    outcome: Literal["done", "refused", "failed"] | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Ask[Page[AuditEntry]]:
    """What people and machines did, newest first.

    Entries with just this ``who``, ``action``, ``on`` and ``outcome``, between two moments. A page may be short, or empty, and still
    name a next one: one request looks at 50,000 entries at most.
    """
    return ask(
        "GET",
        "/api/v1/audit",
        Page[AuditEntry],
        query={
            "who": who,
            "action": action,
            "on": on,
            "outcome": outcome,
            "since_ns": since_ns,
            "until_ns": until_ns,
            "limit": limit,
            "cursor": cursor,
        },
    )


def export_audit(*, first: int | None = None, last: int | None = None) -> Download:
    """The audit log as it is on the disk.

    Entries ``first`` to ``last`` as NDJSON, byte by byte as they are kept: ``previous`` of each line is the SHA-256 of the line
    above, without its line feed. ``holdfast audit --file`` checks it, and so does sha256sum.
    """
    return download("GET", "/api/v1/audit/export", query={"first": first, "last": last})


def verify_audit() -> Ask[AuditVerdict]:
    """Whether the audit log was touched, and how it is.

    Reads the whole log.
    """
    return ask("GET", "/api/v1/audit/verification", AuditVerdict)


def get_api_certificate() -> Ask[ServerCertificate]:
    """The certificate that the API shows, and when it ends."""
    return ask("GET", "/api/v1/authority/api-certificate", ServerCertificate)


def renew_api_certificate(*, idempotency_key: str | None = None) -> Ask[ServerCertificate]:
    """Give the API a new certificate and key, while it runs.

    Handshakes that begin afterwards see the new one. One of the site's own is renewed where it was made.
    """
    return ask("POST", "/api/v1/authority/api-certificate/renewal", ServerCertificate, idempotency_key=idempotency_key, keyed=True)


def get_authority_certificate() -> Download:
    """The certificate of the gateway's authority, PEM."""
    return download("GET", "/api/v1/authority/certificate")


def get_revocation_list(*, form: Literal["der", "pem"] | None = None) -> Download:
    """What the gateway's authority has revoked (RFC 5280, 5)."""
    return download("GET", "/api/v1/authority/crl", query={"form": form})


def list_certificate_grants(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[CertificateGrant]]:
    """Who enters with which certificate, whoever has issued it."""
    return ask("GET", "/api/v1/certificate-grants", Page[CertificateGrant], query={"limit": limit, "cursor": cursor})


def grant_certificate(body: NewCertificateGrant, *, idempotency_key: str | None = None) -> Ask[CertificateGrant]:
    """Let somebody enter with a certificate of the plant's own authority.

    The authority must be one of client_ca_file: TLS asks for that, and the certificate alone opens nothing.
    """
    return ask("POST", "/api/v1/certificate-grants", CertificateGrant, body=body, idempotency_key=idempotency_key, keyed=True)


def revoke_certificate_grant(fingerprint: str, *, idempotency_key: str | None = None) -> Ask[CertificateGrant]:
    """Let nobody enter with a certificate any more, at once and for ever."""
    return ask(
        "POST", "/api/v1/certificate-grants/{}/revocation", CertificateGrant, fingerprint, idempotency_key=idempotency_key, keyed=True
    )


def list_certificates(
    *,
    purpose: Literal["principal", "device"] | None = None,
    ends_before_ns: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Ask[Page[Certificate]]:
    """What the gateway's authority has issued."""
    return ask(
        "GET",
        "/api/v1/certificates",
        Page[Certificate],
        query={"purpose": purpose, "ends_before_ns": ends_before_ns, "limit": limit, "cursor": cursor},
    )


def issue_certificate(body: CertificateRequest, *, idempotency_key: str | None = None) -> Ask[IssuedCertificate]:
    """Issue a certificate with which a person or a program enters."""
    return ask("POST", "/api/v1/certificates", IssuedCertificate, body=body, idempotency_key=idempotency_key, keyed=True)


def get_certificate(serial: str) -> Ask[Certificate]:
    """One certificate."""
    return ask("GET", "/api/v1/certificates/{}", Certificate, serial)


def renew_certificate(serial: str, body: CertificateRenewal, *, idempotency_key: str | None = None) -> Ask[IssuedCertificate]:
    """Issue a certificate for the same name and role, with a key of its own.

    The old one stays good until it ends or is revoked, so that there is time to exchange it.
    """
    return ask("POST", "/api/v1/certificates/{}/renewal", IssuedCertificate, serial, body=body, idempotency_key=idempotency_key, keyed=True)


def revoke_certificate(serial: str, body: Revocation, *, idempotency_key: str | None = None) -> Ask[Certificate]:
    """Make a certificate open nothing any more, at once and for ever."""
    return ask("POST", "/api/v1/certificates/{}/revocation", Certificate, serial, body=body, idempotency_key=idempotency_key, keyed=True)


def create_claim(body: Claim) -> Ask[SignedIn]:
    """Make the first administrator.

    With the code that the gateway said in its log when it was started. There is no default password.
    """
    return ask("POST", "/api/v1/claim", SignedIn, body=body)


def list_commands(
    *,
    device: str | None = None,
    stage: Literal["accepted", "queued", "sent", "acknowledged", "verified", "mismatch", "refused", "expired", "failed"] | None = None,
    source: Literal["api", "uplink", "face", "shadow", "rule", "local"] | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Ask[Page[Command]]:
    """Commands that are remembered, the newest first.

    They are gone when 5,000 newer ones came; their outcomes stay in the journal, under the device `_commands`.
    """
    return ask(
        "GET",
        "/api/v1/commands",
        Page[Command],
        query={"device": device, "stage": stage, "source": source, "limit": limit, "cursor": cursor},
    )


def create_command(body: NewCommand, *, wait_s: float | None = None, idempotency_key: str | None = None) -> Ask[Command]:
    """Write a tag.

    202 while it is under way: its end is told by `GET /commands/{id}`. 200 where it is over, however it ended: `stage` says how. What
    the rules of the site refuse is a command that ended as `refused`, and recorded like every other.
    """
    return ask("POST", "/api/v1/commands", Command, query={"wait_s": wait_s}, body=body, idempotency_key=idempotency_key, keyed=True)


def get_command(id: str, *, wait_s: float | None = None) -> Ask[Command]:
    """One command and how far it has got."""
    return ask("GET", "/api/v1/commands/{}", Command, id, query={"wait_s": wait_s})


def cancel_command(id: str, *, idempotency_key: str | None = None) -> Ask[Command]:
    """Take back a command that was not sent yet."""
    return ask("DELETE", "/api/v1/commands/{}", Command, id, idempotency_key=idempotency_key, keyed=True)


def get_configuration() -> Ask[Configuration]:
    """The document that runs.

    Its ETag is what If-Match of an apply is compared with.
    """
    return ask("GET", "/api/v1/configuration", Configuration)


def get_drift() -> Ask[Drift]:
    """How the file on the gateway differs from what runs.

    The file is read now. What runs is other than the file where somebody applied another document, or the file was changed and not
    taken.
    """
    return ask("GET", "/api/v1/configuration/drift", Drift)


def get_configuration_schema() -> Ask[dict[str, Any]]:
    """The JSON Schema of the document.

    For forms and editors.
    """
    return ask("GET", "/api/v1/configuration/schema", dict[str, Any])


def list_connections(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Connection]]:
    """How each way to the field is.

    Connections by name. A tenant sees those that lead to a device of its own, and counts of these alone.
    """
    return ask("GET", "/api/v1/connections", Page[Connection], query={"limit": limit, "cursor": cursor})


def get_connection(connection: str) -> Ask[Connection]:
    """How one way to the field is."""
    return ask("GET", "/api/v1/connections/{}", Connection, connection)


def get_connection_options(connection: str) -> Ask[ConnectionOptions]:
    """What a connection is configured to do, without any secret."""
    return ask("GET", "/api/v1/connections/{}/options", ConnectionOptions, connection)


def list_devices(*, connection: str | None = None, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Device]]:
    """How each device is.

    Devices by name.
    """
    return ask("GET", "/api/v1/devices", Page[Device], query={"connection": connection, "limit": limit, "cursor": cursor})


def get_device(device: str) -> Ask[Device]:
    """How one device is."""
    return ask("GET", "/api/v1/devices/{}", Device, device)


def read_history(
    device: str, *, tag: str, from_: str | None = None, to: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Ask[Samples]:
    """Stored values of one tag.

    As they were stored, in order of time and then of seq, page by page.
    """
    return ask(
        "GET", "/api/v1/devices/{}/history", Samples, device, query={"tag": tag, "from": from_, "to": to, "limit": limit, "cursor": cursor}
    )


def read_history_buckets(
    device: str, *, tag: list[str], from_: str | None = None, to: str | None = None, bucket_s: int | None = None
) -> Ask[Buckets]:
    """Least, greatest, mean, first and last of each stretch of time.

    Buckets of tags of one device. Those of whole minutes are quick over any time; shorter ones read every stored value.
    """
    return ask(
        "GET", "/api/v1/devices/{}/history/buckets", Buckets, device, query={"tag": tag, "from": from_, "to": to, "bucket_s": bucket_s}
    )


def export_history(
    device: str,
    *,
    tag: list[str],
    from_: str | None = None,
    to: str | None = None,
    format: Literal["csv", "ndjson", "arrow", "parquet"] | None = None,
) -> Download:
    """Stored values to take away: CSV, NDJSON, Arrow or Parquet.

    Arrow and Parquet need the extra ``arrow`` on the gateway. A stream that ends early was broken off: ask again.
    """
    return download("GET", "/api/v1/devices/{}/history/export", device, query={"tag": tag, "from": from_, "to": to, "format": format})


def read_history_line(
    device: str, *, tag: list[str], from_: str | None = None, to: str | None = None, points: int | None = None
) -> Ask[Lines]:
    """A line for eyes, of at most so many points.

    Points chosen by LTTB (Steinarsson 2013) so that the line looks as all of them would; gaps stay gaps.
    """
    return ask("GET", "/api/v1/devices/{}/history/line", Lines, device, query={"tag": tag, "from": from_, "to": to, "points": points})


def get_shadow(device: str) -> Ask[Shadow]:
    """What a device reported last and what is desired of it."""
    return ask("GET", "/api/v1/devices/{}/shadow", Shadow, device)


def change_shadow(device: str, body: ShadowChange, *, if_match: str | None = None, idempotency_key: str | None = None) -> Ask[Shadow]:
    """Desire other values of a device.

    Each tag that is named is desired anew: written once, when the device answers and reports another value.
    """
    return ask(
        "PATCH", "/api/v1/devices/{}/shadow", Shadow, device, body=body, if_match=if_match, idempotency_key=idempotency_key, keyed=True
    )


def list_tags(device: str, *, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Tag]]:
    """What values a device has.

    Tags by name.
    """
    return ask("GET", "/api/v1/devices/{}/tags", Page[Tag], device, query={"limit": limit, "cursor": cursor})


def get_tag(device: str, tag: str) -> Ask[Tag]:
    """What one value of a device is."""
    return ask("GET", "/api/v1/devices/{}/tags/{}", Tag, device, tag)


def list_device_values(device: str, *, tag: str | None = None, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Reading]]:
    """The latest values of one device.

    Values by tag.
    """
    return ask("GET", "/api/v1/devices/{}/values", Page[Reading], device, query={"tag": tag, "limit": limit, "cursor": cursor})


def get_value(device: str, tag: str) -> Ask[Reading]:
    """The latest value of one tag."""
    return ask("GET", "/api/v1/devices/{}/values/{}", Reading, device, tag)


def make_support_bundle() -> Download:
    """A support bundle: settings, states, counters, the last log lines; no secret, no reading."""
    return download("POST", "/api/v1/diagnostics/bundle")


def get_clock() -> Ask[ClockStatus]:
    """How the gateway's clock is.

    As it was asked of the kernel last, some seconds ago at most.
    """
    return ask("GET", "/api/v1/diagnostics/clock", ClockStatus)


def find_number(body: NumberWish, *, idempotency_key: str | None = None) -> Ask[Job]:
    """Find the registers that hold the number that a display shows."""
    return ask("POST", "/api/v1/diagnostics/find-number", Job, body=body, idempotency_key=idempotency_key, keyed=True)


def list_jobs(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Job]]:
    """Traces, scans and searches.

    The newest first, without what they found.
    """
    return ask("GET", "/api/v1/diagnostics/jobs", Page[Job], query={"limit": limit, "cursor": cursor})


def get_job(job: str) -> Ask[Job]:
    """How a job is, and what it has found."""
    return ask("GET", "/api/v1/diagnostics/jobs/{}", Job, job)


def remove_job(job: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """End a job, and forget it."""
    return ask("DELETE", "/api/v1/diagnostics/jobs/{}", None, job, idempotency_key=idempotency_key, keyed=True)


def get_trace_file(job: str) -> Download:
    """The file of a trace, for Wireshark.

    Once the trace has ended.
    """
    return download("GET", "/api/v1/diagnostics/jobs/{}/pcapng", job)


def start_scan(body: ScanWish, *, idempotency_key: str | None = None) -> Ask[Job]:
    """Ask which addresses answer.

    The unit ids of a connection, between its own scans, or the addresses of a network. Reads only.
    """
    return ask("POST", "/api/v1/diagnostics/scans", Job, body=body, idempotency_key=idempotency_key, keyed=True)


def start_trace(body: TraceWish, *, idempotency_key: str | None = None) -> Ask[Job]:
    """Record what passes on a connection.

    A job: when it is done, its file can be had.
    """
    return ask("POST", "/api/v1/diagnostics/traces", Job, body=body, idempotency_key=idempotency_key, keyed=True)


def list_faces(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Face]]:
    """How each face is.

    Faces by name.
    """
    return ask("GET", "/api/v1/faces", Page[Face], query={"limit": limit, "cursor": cursor})


def get_face(face: str) -> Ask[Face]:
    """How one face is."""
    return ask("GET", "/api/v1/faces/{}", Face, face)


def get_gateway() -> Ask[Gateway]:
    """Who and how the gateway is."""
    return ask("GET", "/api/v1/gateway", Gateway)


def ask_graphql(body: GraphqlQuery) -> Ask[GraphqlAnswer]:
    """Ask for much in one question (GraphQL).

    Gateway, connections, devices, tags, values, history, commands, ledger and uplinks. Each field needs the permission of the
    operation that it stands for. Depth, aliases and cost are limited; lists have `limit` and `cursor`.
    """
    return ask("POST", "/api/v1/graphql", GraphqlAnswer, body=body)


def query_history_buckets(body: BucketsAsked) -> Ask[Buckets]:
    """The same for tags of several devices.

    Changes nothing: it is a POST because it may ask for many tags.
    """
    return ask("POST", "/api/v1/history/buckets", Buckets, body=body)


def query_history_line(body: LinesAsked) -> Ask[Lines]:
    """The same for tags of several devices.

    Changes nothing: it is a POST because it may ask for many tags.
    """
    return ask("POST", "/api/v1/history/line", Lines, body=body)


def get_journal() -> Ask[Journal]:
    """How full the journal is."""
    return ask("GET", "/api/v1/journal", Journal)


def list_records(
    *, lane: Literal["telemetry", "events"] | None = None, first: int | None = None, limit: int | None = None, cursor: str | None = None
) -> Ask[Page[JournalEntry]]:
    """Records as they stand in the journal.

    Entries of a lane in their order. Gaps are said. A page may be shorter than ``limit``; at the end of what is durable ``next`` is
    null.
    """
    return ask("GET", "/api/v1/journal/records", Page[JournalEntry], query={"lane": lane, "first": first, "limit": limit, "cursor": cursor})


def get_verification() -> Ask[Verification]:
    """How far the check is, and what it found."""
    return ask("GET", "/api/v1/journal/verification", Verification)


def verify_journal(*, idempotency_key: str | None = None) -> Ask[Verification]:
    """Check every stored byte.

    Begins to read and check every record; damaged ones are quarantined and counted. One check runs at a time.
    """
    return ask("POST", "/api/v1/journal/verification", Verification, idempotency_key=idempotency_key, keyed=True)


def get_ledger() -> Ask[Ledger]:
    """The account of every record.

    For each uplink and lane: appended == acknowledged + pending + dropped + quarantined, at this moment.
    """
    return ask("GET", "/api/v1/ledger", Ledger)


def list_lock_outs(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[LockOut]]:
    """What nobody writes to now, and why."""
    return ask("GET", "/api/v1/lock-outs", Page[LockOut], query={"limit": limit, "cursor": cursor})


def set_lock_out(body: NewLockOut, *, idempotency_key: str | None = None) -> Ask[LockOut]:
    """Let nobody write to a device, a connection or anything, for maintenance.

    It holds at once, for what is queued as well, and after a restart. No uplink can lift it.
    """
    return ask("POST", "/api/v1/lock-outs", LockOut, body=body, idempotency_key=idempotency_key, keyed=True)


def lift_lock_out(id: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """Let commands through again."""
    return ask("DELETE", "/api/v1/lock-outs/{}", None, id, idempotency_key=idempotency_key, keyed=True)


def get_openapi() -> Ask[dict[str, Any]]:
    """This description, as OpenAPI 3.1.

    The same as ``holdfast openapi`` prints. It is made when it is first asked for, and then kept.
    """
    return ask("GET", "/api/v1/openapi.json", dict[str, Any])


def list_registered_devices(
    *,
    state: Literal["registered", "provisioned", "active", "suspended", "decommissioned"] | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Ask[Page[RegisteredDevice]]:
    """All devices, configured or registered, and how they are."""
    return ask("GET", "/api/v1/registry", Page[RegisteredDevice], query={"state": state, "limit": limit, "cursor": cursor})


def register_device(body: NewDevice, *, idempotency_key: str | None = None) -> Ask[RegisteredDevice]:
    """Register a device that will push, or one anew that was decommissioned."""
    return ask("POST", "/api/v1/registry", RegisteredDevice, body=body, idempotency_key=idempotency_key, keyed=True)


def get_registered_device(device: str) -> Ask[DeviceLife]:
    """One device and its life."""
    return ask("GET", "/api/v1/registry/{}", DeviceLife, device)


def enrol_device(device: str, body: EnrolmentRequest) -> Ask[DeviceCertificate]:
    """For a device: its certificate, for the enrolment token that it was given.

    The same answer for a device that is not there and for a token that is wrong, used or has ended.
    """
    return ask("POST", "/api/v1/registry/{}/certificate", DeviceCertificate, device, body=body)


def renew_device_certificate(device: str, body: DeviceRenewal) -> Ask[DeviceCertificate]:
    """For a device: a new certificate, over a connection with the old one."""
    return ask("POST", "/api/v1/registry/{}/certificate/renewal", DeviceCertificate, device, body=body)


def list_device_credentials(device: str) -> Ask[Credentials]:
    """Certificates and tokens that a device was given."""
    return ask("GET", "/api/v1/registry/{}/credentials", Credentials, device)


def revoke_device_credential(device: str, credential: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """Make a device's certificate or token good no longer, at once."""
    return ask("DELETE", "/api/v1/registry/{}/credentials/{}", None, device, credential, idempotency_key=idempotency_key, keyed=True)


def decommission_device(device: str, body: Decommissioning, *, idempotency_key: str | None = None) -> Ask[RegisteredDevice]:
    """End the life of a device: its credentials are dead at once.

    Nothing of it is taken any more. To use the name again, register it anew.
    """
    return ask("POST", "/api/v1/registry/{}/decommission", RegisteredDevice, device, body=body, idempotency_key=idempotency_key, keyed=True)


def invite_device(device: str, body: EnrolmentWish) -> Ask[Enrolment]:
    """A secret with which the device gets a certificate, once."""
    return ask("POST", "/api/v1/registry/{}/enrolment", Enrolment, device, body=body)


def change_device_state(device: str, body: StateChange, *, idempotency_key: str | None = None) -> Ask[RegisteredDevice]:
    """Suspend a device, let it go on, or take it a step further.

    Of a suspended device nothing is taken: it is not scanned, and what it pushes is refused. Its tags are bad, out of service.
    """
    return ask("POST", "/api/v1/registry/{}/state", RegisteredDevice, device, body=body, idempotency_key=idempotency_key, keyed=True)


def issue_device_token(device: str, body: DeviceTokenWish) -> Ask[DeviceToken]:
    """A token (JWT) with which the device pushes."""
    return ask("POST", "/api/v1/registry/{}/token", DeviceToken, device, body=body)


def list_repairs(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Repair]]:
    """Each known fault as it is now.

    The worst first.
    """
    return ask("GET", "/api/v1/repairs", Page[Repair], query={"limit": limit, "cursor": cursor})


def get_repair(repair: str) -> Ask[Repair]:
    """One known fault."""
    return ask("GET", "/api/v1/repairs/{}", Repair, repair)


def fix_repair(repair: str, *, idempotency_key: str | None = None) -> Ask[RepairDone]:
    """Press the fix of a known fault.

    It needs the permission of what it does as well.
    """
    return ask("POST", "/api/v1/repairs/{}/fix", RepairDone, repair, idempotency_key=idempotency_key, keyed=True)


def put_off_repair(repair: str, body: PutOffWish, *, idempotency_key: str | None = None) -> Ask[Repair]:
    """A known fault waits."""
    return ask("POST", "/api/v1/repairs/{}/put-off", Repair, repair, body=body, idempotency_key=idempotency_key, keyed=True)


def bring_back_repair(repair: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """A known fault waits no longer."""
    return ask("DELETE", "/api/v1/repairs/{}/put-off", None, repair, idempotency_key=idempotency_key, keyed=True)


def list_revisions(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Revision]]:
    """What was applied, newest first."""
    return ask("GET", "/api/v1/revisions", Page[Revision], query={"limit": limit, "cursor": cursor})


def apply_revision(body: ApplyDocument, *, if_match: str | None = None, idempotency_key: str | None = None) -> Ask[Applied]:
    """Have a document run.

    Answers when everything but the API is swapped; where the API moves, the answer gets out before. With confirm_within_s the gateway
    goes back by itself unless the revision is confirmed in time, also over a crash.
    """
    return ask("POST", "/api/v1/revisions", Applied, body=body, if_match=if_match, idempotency_key=idempotency_key, keyed=True)


def plan_revision(body: bytes) -> Ask[Plan]:
    """What applying a document would change, restart and cost.

    Nothing is touched. The body is the document itself, up to 16 MiB.
    """
    return ask("POST", "/api/v1/revisions/plan", Plan, body=body, content_type="application/yaml")


def roll_back(body: RollBack, *, if_match: str | None = None, idempotency_key: str | None = None) -> Ask[Applied]:
    """Go back to what was confirmed before.

    Ends the trial, if there is one; else runs the document that was confirmed before the one that runs.
    """
    return ask("POST", "/api/v1/revisions/rollback", Applied, body=body, if_match=if_match, idempotency_key=idempotency_key, keyed=True)


def get_revision(number: int) -> Ask[RevisionDetail]:
    """A revision with its document and what it changed."""
    return ask("GET", "/api/v1/revisions/{}", RevisionDetail, number)


def confirm_revision(number: int, body: ConfirmRevision, *, idempotency_key: str | None = None) -> Ask[Revision]:
    """Keep a revision that is on trial.

    Twice is fine. 409 where it is over, or was never on trial.
    """
    return ask("POST", "/api/v1/revisions/{}/confirm", Revision, number, body=body, idempotency_key=idempotency_key, keyed=True)


def roll_back_revision(number: int, body: RollBack, *, if_match: str | None = None, idempotency_key: str | None = None) -> Ask[Applied]:
    """Have an earlier document run again.

    The document of revision ``number`` runs, as a new revision. Of a revision on trial: it ends, and what it replaced runs.
    """
    return ask(
        "POST", "/api/v1/revisions/{}/rollback", Applied, number, body=body, if_match=if_match, idempotency_key=idempotency_key, keyed=True
    )


def get_session() -> Ask[Account]:
    """Who asks.

    Who asks and what they may do.
    """
    return ask("GET", "/api/v1/session", Account)


def create_session(body: SignIn) -> Ask[SignedIn]:
    """Sign in.

    With a name and a password. Each attempt too many doubles the wait (429, Retry-After).
    """
    return ask("POST", "/api/v1/session", SignedIn, body=body)


def delete_session() -> Ask[None]:
    """Sign out."""
    return ask("DELETE", "/api/v1/session", None)


def begin_oidc(*, form: Literal["bearer", "cookie"] | None = None) -> Ask[None]:
    """Sign in at the plant's identity provider.

    For browsers: sends them to the provider of the site (OpenID Connect), which sends them back to the callback.
    """
    return ask("GET", "/api/v1/session/oidc", None, query={"form": form})


def finish_oidc(*, state: str | None = None, code: str | None = None, iss: str | None = None, error: str | None = None) -> Ask[SignedIn]:
    """Come back from the identity provider.

    What the provider's answer proves becomes a session, with the role that the site gives to the person's groups.
    """
    return ask("GET", "/api/v1/session/oidc/callback", SignedIn, query={"state": state, "code": code, "iss": iss, "error": error})


def change_password(body: PasswordChange) -> Ask[None]:
    """Change one's own password.

    Every other session of the user ends.
    """
    return ask("PUT", "/api/v1/session/password", None, body=body)


def list_sessions(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Session]]:
    """One's own sessions.

    The oldest first.
    """
    return ask("GET", "/api/v1/sessions", Page[Session], query={"limit": limit, "cursor": cursor})


def end_session(session: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """End a session: one's own, or an administrator anybody's."""
    return ask("DELETE", "/api/v1/sessions/{}", None, session, idempotency_key=idempotency_key, keyed=True)


def list_shadows(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[ShadowSummary]]:
    """The shadow of each device, in short.

    Shadows by device.
    """
    return ask("GET", "/api/v1/shadows", Page[ShadowSummary], query={"limit": limit, "cursor": cursor})


def list_templates(*, search: str | None = None, limit: int | None = None, cursor: str | None = None) -> Ask[Page[TemplateSummary]]:
    """Search the device templates.

    Templates by name.
    """
    return ask("GET", "/api/v1/templates", Page[TemplateSummary], query={"search": search, "limit": limit, "cursor": cursor})


def get_template(folder: str, product: str) -> Ask[Template]:
    """One device template, whole."""
    return ask("GET", "/api/v1/templates/{}/{}", Template, folder, product)


def list_tokens(*, all: bool | None = None, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Token]]:
    """One's own tokens, or everybody's.

    Tokens by id, without their secrets.
    """
    return ask("GET", "/api/v1/tokens", Page[Token], query={"all": all, "limit": limit, "cursor": cursor})


def create_token(body: NewToken) -> Ask[IssuedToken]:
    """Make a token.

    Its secret is in this answer and nowhere else. A token never reaches further than whoever makes it, and ends with them, unless an
    administrator makes it for a machine.
    """
    return ask("POST", "/api/v1/tokens", IssuedToken, body=body)


def revoke_token(token: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """Revoke a token: one's own, or an administrator anybody's.

    It opens nothing any more once this is answered.
    """
    return ask("DELETE", "/api/v1/tokens/{}", None, token, idempotency_key=idempotency_key, keyed=True)


def list_uplinks(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Uplink]]:
    """How each uplink is.

    Uplinks by name, each with its account.
    """
    return ask("GET", "/api/v1/uplinks", Page[Uplink], query={"limit": limit, "cursor": cursor})


def get_uplink(uplink: str) -> Ask[Uplink]:
    """How one uplink is."""
    return ask("GET", "/api/v1/uplinks/{}", Uplink, uplink)


def list_users(*, limit: int | None = None, cursor: str | None = None) -> Ask[Page[User]]:
    """Who may sign in.

    Users by name.
    """
    return ask("GET", "/api/v1/users", Page[User], query={"limit": limit, "cursor": cursor})


def create_user(body: NewUser) -> Ask[User]:
    """Add a user.

    Nobody gives more than they have themselves.
    """
    return ask("POST", "/api/v1/users", User, body=body)


def get_user(user: str) -> Ask[User]:
    """One user."""
    return ask("GET", "/api/v1/users/{}", User, user)


def change_user(user: str, body: UserChange, *, if_match: str | None = None, idempotency_key: str | None = None) -> Ask[User]:
    """Change role or tenant, shut out, let in.

    The user's sessions end, and tokens that reach further than the user does then. The last administrator stays one.
    """
    return ask("PATCH", "/api/v1/users/{}", User, user, body=body, if_match=if_match, idempotency_key=idempotency_key, keyed=True)


def delete_user(user: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """Remove a user.

    Sessions and tokens of the user end; tokens that belong to the gateway go on. The last administrator stays.
    """
    return ask("DELETE", "/api/v1/users/{}", None, user, idempotency_key=idempotency_key, keyed=True)


def set_password(user: str, body: NewPassword) -> Ask[None]:
    """Set a user's password.

    The user's sessions end; if they tried too often, they may try again.
    """
    return ask("PUT", "/api/v1/users/{}/password", None, user, body=body)


def list_user_sessions(user: str, *, limit: int | None = None, cursor: str | None = None) -> Ask[Page[Session]]:
    """Sessions of a user.

    The oldest first. Those who signed in elsewhere (OIDC) are called oidc~NAME.
    """
    return ask("GET", "/api/v1/users/{}/sessions", Page[Session], user, query={"limit": limit, "cursor": cursor})


def end_user_sessions(user: str, *, idempotency_key: str | None = None) -> Ask[None]:
    """End every session of a user."""
    return ask("DELETE", "/api/v1/users/{}/sessions", None, user, idempotency_key=idempotency_key, keyed=True)


def unlock_user(user: str, *, idempotency_key: str | None = None) -> Ask[User]:
    """Let a user who tried too often try again."""
    return ask("POST", "/api/v1/users/{}/unlock", User, user, idempotency_key=idempotency_key, keyed=True)


def list_values(
    *, device: str | None = None, tag: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Ask[Page[Reading]]:
    """The latest values of many devices.

    Values by device and tag. Without patterns, of all.
    """
    return ask("GET", "/api/v1/values", Page[Reading], query={"device": device, "tag": tag, "limit": limit, "cursor": cursor})


def get_health() -> Ask[Health]:
    """Whether the gateway runs."""
    return ask("GET", "/healthz", Health)


def get_metrics() -> Download:
    """Metrics for Prometheus.

    The same as on the port of its own (telemetry.metrics_port), for whoever shows a token.
    """
    return download("GET", "/metrics")


def get_readiness() -> Ask[Health]:
    """Whether the gateway is ready.

    200 while the site has been applied, the journal stores and the gateway's state is kept; else 503.
    """
    return ask("GET", "/readyz", Health)
