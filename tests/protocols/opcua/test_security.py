"""Nobody is trusted before a person said so, no password goes out readable, and each policy works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua
from click.testing import CliRunner
from cryptography import x509

from gateway.cli import main
from protocols.clock import SystemClock
from protocols.contract import Misfit, Refused
from protocols.model import Kind
from protocols.opcua import certificates
from protocols.opcua.config import X509, OpcUa, Security, UserName
from protocols.opcua.driver import OPCUA
from protocols.opcua.shell import _token_policy
from protocols.secret import FromFile
from tests.peers.opcua import OpcUaServer
from tests.protocols.opcua.plant import options, tag, watching

CANARY = "s3cret-canary"


def trust(folder: Path, server: OpcUaServer) -> None:
    certificates.put(folder, x509.load_der_x509_certificate(server.certificate), "trusted")


def secured(server: OpcUaServer, folder: Path, policy: str = "Basic256Sha256", mode: str = "sign-and-encrypt", **more: object) -> OpcUa:
    security = Security(policy=policy, mode=mode, folder=str(folder))  # type: ignore[arg-type] # parameters of a test
    return options(server, tag("level", Kind.UINT16), security=security, **more)


async def refusal(wanted: OpcUa, kind: type[Exception] = Refused) -> str:
    with pytest.raises(kind) as caught:
        async with OPCUA.open(wanted, clock=SystemClock()):
            pass
    return str(caught.value)


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
@pytest.mark.parametrize("mode", ["sign", "sign-and-encrypt"])
async def test_each_policy_and_mode_brings_values(server: OpcUaServer, tmp_path: Path, policy: str, mode: str) -> None:
    trust(tmp_path, server)
    async with watching(secured(server, tmp_path, policy, mode)) as (_, seen, until):
        await until("it came", lambda: seen.last("level") is not None)


async def test_an_unknown_server_is_refused_recorded_and_accepted_by_hand(server: OpcUaServer, tmp_path: Path) -> None:
    """The whole way of a person: refused, listed, compared, accepted, connected, no longer trusted."""
    folder, site = tmp_path / "pki", tmp_path / "site.yaml"
    site.write_text(
        f"holdfast: 1\ngateway: {{group: g, name: n}}\nconnections:\n"
        f"  - {{name: plant, type: opcua, endpoint: '{server.endpoint}', security: {{folder: '{folder}'}}}}\n"
    )
    created = (await server.sessions())[1]
    text = await refusal(secured(server, folder))
    mark = certificates.fingerprint(x509.load_der_x509_certificate(server.certificate))
    assert mark[:16] in text
    assert "holdfast opcua trust accept" in text
    assert (await server.sessions())[1] == created, "no session was opened to a server that is not trusted"
    assert [one.fingerprint for one in certificates.shelf(folder, "rejected")] == [mark]

    def run(*words: str) -> str:
        result = CliRunner().invoke(main, ["opcua", "trust", *words])
        assert result.exit_code == 0, result.output
        return result.output

    assert "rejected" in await asyncio.to_thread(run, "list", str(site), "plant")
    assert "urn:example.com:plant" in await asyncio.to_thread(run, "show", str(site), "plant", mark[:10])
    await asyncio.to_thread(run, "accept", str(site), "plant", mark[:10])
    async with watching(secured(server, folder)) as (_, seen, until):
        await until("it came", lambda: seen.last("level") is not None)
    assert list(certificates.shelf(folder, "rejected")) == []
    await asyncio.to_thread(run, "reject", str(site), "plant", mark[:10])
    assert "not trusted" in await refusal(secured(server, folder))
    await asyncio.to_thread(run, "remove", str(site), "plant", mark[:10])
    assert list(certificates.shelf(folder, "rejected")) == []


async def test_another_certificate_in_the_list_does_not_help(server: OpcUaServer, tmp_path: Path) -> None:
    own = certificates.own_identity(tmp_path / "x", "urn:somebody", SystemClock().time_ns())
    certificates.put(tmp_path, x509.load_der_x509_certificate(own.certificate), "trusted")
    assert "not trusted" in await refusal(secured(server, tmp_path))


async def test_our_own_certificate_is_made_once_with_our_uri_in_it(server: OpcUaServer, tmp_path: Path) -> None:
    trust(tmp_path, server)
    for _ in range(2):
        async with OPCUA.open(secured(server, tmp_path), clock=SystemClock()):
            pass
        key = tmp_path / "own" / "key.pem"
        assert key.stat().st_mode & 0o777 == 0o600
        made = (tmp_path / "own" / "certificate.der").read_bytes()
        assert certificates.uris(x509.load_der_x509_certificate(made)) == ["urn:holdfast:gateway"]
        key_before = key.read_bytes()
    assert key.read_bytes() == key_before
    assert "urn:holdfast:gateway" in await refusal(secured(server, tmp_path, application_uri="urn:another"), Misfit)


async def test_a_user_with_the_right_password_comes_in_and_another_does_not(server: OpcUaServer, tmp_path: Path) -> None:
    trust(tmp_path, server)
    (tmp_path / "right").write_text(CANARY)
    (tmp_path / "wrong").write_text("another-canary")
    right = UserName(name="operator", password=FromFile(str(tmp_path / "right")))
    async with watching(secured(server, tmp_path, user=right)) as (_, seen, until):
        await until("it came", lambda: seen.last("level") is not None)
    sessions = (await server.sessions())[0]
    text = await refusal(secured(server, tmp_path, user=UserName(name="operator", password=FromFile(str(tmp_path / "wrong")))))
    assert "user" in text
    assert "canary" not in text
    assert (await server.sessions())[0] == sessions, "a session that was not let in is closed"


async def test_a_user_with_a_certificate_comes_in(server: OpcUaServer, tmp_path: Path) -> None:
    trust(tmp_path, server)
    certificates.own_identity(tmp_path / "person", "urn:person", SystemClock().time_ns())
    own = tmp_path / "person" / "own"
    user = X509(cert_file=str(own / "certificate.der"), key_file=str(own / "key.pem"))
    async with watching(secured(server, tmp_path, user=user)) as (_, seen, until):
        await until("it came", lambda: seen.last("level") is not None)


BASIC256 = "http://opcfoundation.org/UA/SecurityPolicy#Basic256"
GOOD = "http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"
NONE = "http://opcfoundation.org/UA/SecurityPolicy#None"
SIGNED, ENCRYPTED, OPEN = ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.SignAndEncrypt, ua.MessageSecurityMode.None_


@pytest.mark.parametrize(
    ("offered", "channel", "mode", "in_the_clear", "taken"),
    [
        ([None], GOOD, ENCRYPTED, False, 0),  # as the channel, which is encrypted
        ([None], GOOD, SIGNED, False, 0),  # by the channel's policy
        ([NONE], GOOD, ENCRYPTED, False, 0),  # readable within an encrypted channel
        ([NONE, GOOD], GOOD, SIGNED, False, 1),  # the better way is found
        ([GOOD], NONE, OPEN, False, 0),
        ([NONE], GOOD, SIGNED, False, None),
        ([None], NONE, OPEN, False, None),
        ([None], NONE, OPEN, True, 0),  # where that is written
        ([BASIC256], GOOD, SIGNED, True, None),  # deprecated: never
        ([BASIC256], NONE, OPEN, True, None),
    ],
)
def test_a_password_goes_nowhere_readable_unless_that_is_written(
    offered: list[str | None], channel: str, mode: ua.MessageSecurityMode, in_the_clear: bool, taken: int | None, server: OpcUaServer
) -> None:
    policies = [ua.UserTokenPolicy(TokenType=ua.UserTokenType.UserName, SecurityPolicyUri=uri) for uri in offered]
    client: Any = SimpleNamespace(_policy_ids=policies, security_policy=SimpleNamespace(URI=channel, Mode=mode))  # Any: what is looked at
    wanted = options(server, user=UserName(name="operator", password=FromFile("x"), in_the_clear=in_the_clear))
    if taken is None:
        with pytest.raises(Refused, match="readable"):
            _token_policy(client, wanted, "here")
    else:
        assert _token_policy(client, wanted, "here") is policies[taken]


async def test_a_policy_that_is_not_offered_is_a_misfit_that_says_what_is(tmp_path: Path, server: OpcUaServer) -> None:
    trust(tmp_path, server)
    user = X509(cert_file=str(tmp_path / "none.pem"), key_file=str(tmp_path / "none.key"))
    assert "none.pem" in await refusal(secured(server, tmp_path, user=user), Misfit)


async def test_no_deprecated_policy_can_be_written() -> None:
    policies = Security.__annotations__["policy"]
    assert "Basic256Sha256" in str(policies)
    assert "Basic128Rsa15" not in str(policies)
    assert '"Basic256"' not in str(policies)
