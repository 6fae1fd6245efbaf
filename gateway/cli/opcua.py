"""``holdfast opcua``: which OPC UA servers are trusted. Nothing is trusted before a person accepted its certificate."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateway.cli.common import SITE, WRONG, fail, loaded, printable
from gateway.config.faces import OpcuaFace
from protocols.opcua import certificates
from protocols.opcua.certificates import SHELVES, Shelved
from protocols.opcua.config import OpcUa

CONNECTION = click.argument("connection")
FINGERPRINT = click.argument("fingerprint")


@click.group()
def opcua() -> None:
    """Certificates of OPC UA servers, and our own."""


@opcua.group()
def trust() -> None:
    """Whom CONNECTION (or OPC UA face) of SITE trusts. The gateway looks at each new channel: nothing has to be restarted."""


@trust.command("list")
@SITE
@CONNECTION
def list_(site: Path, connection: str) -> None:
    """The certificates that are trusted, that complete a chain, and that were refused."""
    folder = _folder(site, connection)
    found = [one for name in SHELVES for one in certificates.shelf(folder, name)]
    for one in found:
        click.echo(f"{one.shelf:<9}{one.fingerprint[:16]}  until {one.certificate.not_valid_after_utc:%Y-%m-%d}  {_who(one)}")
    if not found:
        click.echo(f"{folder}: no certificates; one that is refused comes here when the gateway, or holdfast probe, connects")


@trust.command("show")
@SITE
@CONNECTION
@FINGERPRINT
def show(site: Path, connection: str, fingerprint: str) -> None:
    """Everything that one certificate says, to be compared with what the server shows."""
    one = _one(_folder(site, connection), fingerprint)
    certificate = one.certificate
    rows = {
        "folder": one.shelf,
        "SHA-256": one.fingerprint,
        "SHA-1": certificate.fingerprint(hashes.SHA1()).hex(),  # what OPC UA tools call the thumbprint
        "subject": certificates.subject(certificate),
        "application": ", ".join(_printable(uri) for uri in certificates.uris(certificate)),
        "issuer": _printable(certificate.issuer.rfc4514_string()),
        "valid": f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}",
        "file": str(one.path),
    }
    for key, value in rows.items():
        if value:
            click.echo(f"{key:<12} {value}")


@trust.command()
@SITE
@CONNECTION
@FINGERPRINT
def accept(site: Path, connection: str, fingerprint: str) -> None:
    """Trust the refused certificate that begins with FINGERPRINT. Compare it with the server's own first."""
    folder = _folder(site, connection)
    one = _one(folder, fingerprint)
    _move(folder, one, "trusted")
    click.echo(f"trusted: {one.fingerprint[:16]} {_who(one)}")


@trust.command()
@SITE
@CONNECTION
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--issuer", is_flag=True, help="An authority that only completes a chain and is not trusted by itself.")
def add(site: Path, connection: str, file: Path, issuer: bool) -> None:
    """Trust the certificate in FILE (PEM or DER): a server's, or that of an authority that signs servers."""
    folder = _folder(site, connection)
    raw = file.read_bytes()[: certificates.MAX_FILE]
    try:
        certificate = x509.load_pem_x509_certificate(raw) if b"-----BEGIN" in raw else x509.load_der_x509_certificate(raw)
    except ValueError as error:
        fail(f"{file} holds no certificate: {error}", WRONG)
    shelf = "issuers" if issuer else "trusted"
    _move(folder, Shelved(shelf, file, certificate), shelf)
    click.echo(f"{shelf}: {certificates.fingerprint(certificate)[:16]} {certificates.subject(certificate)}")


@trust.command()
@SITE
@CONNECTION
@FINGERPRINT
def reject(site: Path, connection: str, fingerprint: str) -> None:
    """No longer trust a certificate; it is kept among the refused."""
    folder = _folder(site, connection)
    one = _one(folder, fingerprint)
    _move(folder, one, "rejected")
    click.echo(f"rejected: {one.fingerprint[:16]} {_who(one)}; a session that is open lives until it ends")


@trust.command()
@SITE
@CONNECTION
@FINGERPRINT
def remove(site: Path, connection: str, fingerprint: str) -> None:
    """Forget a certificate; the server is refused, and recorded, when it is next met."""
    one = _one(_folder(site, connection), fingerprint)
    try:
        one.path.unlink()
    except OSError as error:
        fail(f"{one.path}: {error.strerror}: run this as the service's user")
    click.echo(f"removed: {one.fingerprint[:16]} {_who(one)}")


def _folder(site: Path, connection: str) -> Path:
    document = loaded(site)
    found = [one for one in (*document.connections, *document.faces) if isinstance(one, OpcUa | OpcuaFace)]
    one = next((each for each in found if each.name == connection), None)
    if one is None:
        names = ", ".join(each.name for each in found) or "none"
        fail(f"no OPC UA connection or face is called {connection!r} in {site}; there is: {names}", WRONG)
    return Path(one.security.folder)


def _one(folder: Path, mark: str) -> Shelved:
    found = certificates.find(folder, mark)
    if not found:
        fail(f"no certificate in {folder} begins with {_printable(mark)!r}: holdfast opcua trust list shows what there is", WRONG)
    if len({one.fingerprint for one in found}) > 1:
        fail(f"{len(found)} certificates begin with {_printable(mark)!r}: give more of the fingerprint", WRONG)
    return found[0]


def _move(folder: Path, one: Shelved, shelf: str) -> None:
    try:
        certificates.put(folder, one.certificate, shelf)
    except OSError as error:
        fail(f"{folder}: {error.strerror}: run this as the service's user")


def _who(one: Shelved) -> str:
    uris = ", ".join(_printable(uri) for uri in certificates.uris(one.certificate))
    return f"{certificates.subject(one.certificate)}" + (f" ({uris})" if uris else "")


def _printable(text: str) -> str:
    return printable(text)[:200]
