"""References to secrets: where they may lie, when they are read, and that nothing tells what they hold."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from protocols.secret import MAX_SECRET_BYTES, FromCredential, FromEnv, FromFile, Secret, SecretMissing

CANARY = "canary-5d1c"


def test_a_file_holds_a_secret_and_one_line_end_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for raw, expected in ((f"{CANARY}\n", CANARY), (CANARY, CANARY), (f"{CANARY}\n\n", f"{CANARY}\n"), ("  a b ", "  a b ")):
        file.write_text(raw)
        assert FromFile(str(file)).read() == expected


def test_a_secret_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    secret = FromFile(str(file))
    assert secret.read() == "old"
    file.write_text("new")
    assert secret.read() == "new"


def test_an_environment_variable_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_TEST_SECRET", CANARY)
    assert FromEnv("HOLDFAST_TEST_SECRET").read() == CANARY


def test_a_systemd_credential_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broker").write_text(CANARY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert FromCredential("broker").read() == CANARY


@pytest.mark.parametrize("name", ["../broker", "a/b", "", "a b", "x" * 256])
def test_a_credential_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"from": "credential", "name": name}, Secret)


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    missing: list[tuple[Secret, str, str]] = [
        (FromFile(str(tmp_path / "none")), str(tmp_path / "none"), "check that it exists"),
        (FromFile(str(tmp_path)), str(tmp_path), "check that it exists"),
        (FromEnv("HOLDFAST_TEST_NOT_SET"), "HOLDFAST_TEST_NOT_SET", "set it in the service's environment"),
        (FromCredential("broker"), "broker", "LoadCredential=broker"),
    ]
    for secret, where, advice in missing:
        with pytest.raises(SecretMissing) as caught:
            secret.read()
        assert where in str(caught.value)
        assert advice in str(caught.value)


@pytest.mark.parametrize("raw", [CANARY.encode() + b"\xff", CANARY.encode() * (MAX_SECRET_BYTES // 10)])
def test_what_cannot_be_a_secret_is_refused_without_a_word_of_it(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(raw)
    secret = FromFile(str(tmp_path / "secret"))
    with pytest.raises(SecretMissing) as caught:
        secret.read()
    assert CANARY not in str(caught.value)
    assert str(len(raw)) not in str(caught.value).replace(str(tmp_path), "")
    assert caught.value.__cause__ is None
    assert CANARY not in repr(secret)


def test_a_device_that_never_ends_is_not_read_for_ever() -> None:
    with pytest.raises(SecretMissing):
        FromFile("/dev/zero").read()
