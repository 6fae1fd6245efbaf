"""What could be a secret does not get through, wherever it stands; what helps does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.diagnostics.redact import HIDDEN, Redactor, secrets_in
from protocols.secret import FromEnv, FromFile

CANARY = "c4n4ry-S3cret"


@pytest.mark.parametrize(
    "text",
    [
        f"https://anna:{CANARY}@example.com/x",
        f"opc.tcp://{CANARY}@example.com",
        f"GET /x?token={CANARY}&y=1",
        f"password = '{CANARY}'",
        f'{{"api_key": "{CANARY}"}}',
        f"Authorization: Bearer {CANARY}",
        f"authorization: basic {CANARY}==",
        f"Cookie: holdfast_session={CANARY}",
        f"hft_{CANARY}",
        f"hfs_{CANARY}-more",
        f"eyJhbGciOi.{CANARY}.x",
        f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}",
        f"$argon2id$v=19$m=65536${CANARY}",
        f"client_secret={CANARY}",
    ],
)
def test_what_looks_like_a_credential_is_hidden_in_any_text(text: str) -> None:
    assert CANARY not in Redactor().text(text)
    assert CANARY not in str(Redactor().value({"detail": ["said", text]}))


@pytest.mark.parametrize(
    "key", ["password", "Authorization", "api_key", "apikey", "client_secret", "token", "psk", "cookie", "private_key", "code"]
)
def test_what_stands_under_a_key_that_names_a_secret_is_hidden_whatever_it_is(key: str) -> None:
    for value in (CANARY, [CANARY], {"inner": CANARY}, 123456789):
        assert Redactor().value({key: value}) == {key: HIDDEN}
    assert Redactor().value({key: ""}) == {key: ""}, "that there is none may be known"


def test_what_a_reference_leads_to_is_hidden_by_its_letters_and_the_reference_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Options(msgspec.Struct):
        login: FromFile | FromEnv
        note: str

    (tmp_path / "secret").write_text(f"{CANARY}\n")
    monkeypatch.setenv("PLANT", "tulip-9")
    site = {
        "one": Options(FromFile(str(tmp_path / "secret")), f"left here by mistake: {CANARY}"),
        "two": [Options(FromEnv("PLANT"), "a tulip-9")],
    }
    told = Redactor(secrets_in(site)).value(site)
    assert told["one"] == {"login": {"from": "file", "path": str(tmp_path / "secret")}, "note": f"left here by mistake: {HIDDEN}"}
    assert told["two"][0]["note"] == f"a {HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:502: nothing listens there: check port, and that the device's Modbus server is on",
        "certificate 0123456789abcdef of CN=plc is not trusted: holdfast opcua trust accept",
        "2 sessions, 17 tokens are not told",
        "mqtts://example.com:8883/topic",
    ],
)
def test_what_helps_is_not_touched(text: str) -> None:
    assert Redactor(["c4n4ry"]).text(text) == text


def test_depth_length_and_number_have_a_limit() -> None:
    deep: object = CANARY
    for _ in range(500):
        deep = [deep]
    assert CANARY not in str(Redactor().value(deep))
    assert len(Redactor().text("x" * 10**6)) < 20_000


@pytest.mark.parametrize("part", ["x", "password", "://", "-----BEGIN A-----", "eyJ", "a.", "token=", "= ", "'", "bearer "])
def test_a_text_that_was_made_to_hold_it_up_does_not(part: str) -> None:
    """Each of these took half a minute where an expression could begin anywhere and look to the end."""
    assert len(Redactor().text(part * 100_000)) < 300_000
