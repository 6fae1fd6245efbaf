"""Which messages prove where they come from: the styles of common senders, by their own published examples where there are some."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any, Final

import pytest

from protocols.http.config import SenderAuth, Signed, Token
from protocols.http.signature import Unproven, Verifier
from protocols.secret import FromFile, SecretMissing

NOW_S: Final = 1_700_000_000
SECRET: Final = "canary-secret-0123456789"
BODY: Final = b'{"level": 7}'


def sender(folder: Path, secret: str = SECRET, **more: Any) -> Signed:  # Any: fields of Signed
    (folder / "secret").write_text(secret)
    return Signed(secret=FromFile(path=str(folder / "secret")), **more)


def judged(auth: SenderAuth, headers: dict[str, str], body: bytes = BODY, *, id_header: str = "") -> tuple[str, ...]:
    return Verifier(auth, id_header).verify({name.lower(): value for name, value in headers.items()}, body, NOW_S * 10**9)


def mac(text: bytes, secret: bytes = SECRET.encode()) -> str:
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def plain(time: object = NOW_S, body: bytes = BODY) -> dict[str, str]:
    return {"X-Timestamp": str(time), "X-Signature": mac(f"{time}.".encode() + body)}


def test_the_example_of_github(tmp_path: Path) -> None:
    """From its documentation, "Validating webhook deliveries"."""
    auth = sender(tmp_path, "It's a Secret to Everybody", style="github")
    headers = {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", "X-GitHub-Delivery": "7"}
    assert judged(auth, headers, b"Hello, World!") == ("id 7",)


def test_the_example_of_standard_webhooks(tmp_path: Path) -> None:
    """From its specification's test vector (also Svix's)."""
    auth = sender(tmp_path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", style="standard", window_s=3600.0)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verifier = Verifier(auth, "")
    assert verifier.verify(headers, b'{"test": 2432232314}', 1_614_265_330 * 10**9)[0] == "id msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_each_style_takes_what_is_right(tmp_path: Path) -> None:
    text = f"{NOW_S}.".encode() + BODY
    assert len(judged(sender(tmp_path), {**plain(), "X-Delivery-Id": "a"})) == 2
    assert len(judged(sender(tmp_path), plain())) == 1
    stripe = f"t={NOW_S},v1={'0' * 64}, v1={mac(text)},v0=x"
    assert len(judged(sender(tmp_path, style="stripe"), {"Stripe-Signature": stripe})) == 1
    own = sender(tmp_path, signature_header="X-Own", timestamp_header="X-When")
    assert judged(own, {"X-Own": f"sha256={mac(text)}", "X-When": str(NOW_S), "X-No": "n"}, id_header="X-No")[0] == "id n"
    (tmp_path / "token").write_text(SECRET)
    token = Token(token=FromFile(path=str(tmp_path / "token")))
    assert judged(token, {"Authorization": f"bearer {SECRET}", "X-Delivery-Id": "d"}) == ("id d",)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Signature": mac(f"{NOW_S}.".encode() + BODY)},  # no time
        {"X-Timestamp": str(NOW_S)},  # no signature
        plain(NOW_S - 301),
        plain(NOW_S + 301),
        plain("soon"),
        plain("٣"),
        plain("9" * 400),
        plain(-1),
        plain(body=BODY + b" "),
        {**plain(), "X-Timestamp": str(NOW_S + 1)},
        {**plain(), "X-Timestamp": f"0{NOW_S}"},
        {**plain(), "X-Signature": "zz"},
        {**plain(), "X-Signature": ""},
        {**plain(), "X-Signature": plain()["X-Signature"][:-2]},
        {**plain(), "X-Signature": "0" * 5000},
        {**plain(), "X-Signature": mac(f"{NOW_S}.".encode() + BODY, b"guessed-guessed-guessed")},
    ],
)
def test_what_is_not_right_is_not_taken(tmp_path: Path, headers: dict[str, str]) -> None:
    with pytest.raises(Unproven):
        judged(sender(tmp_path), headers)


@pytest.mark.parametrize(
    "said", ["", "Bearer", "Bearer ", f"Basic {SECRET}", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", SECRET, "Bearer é"]
)
def test_tokens_that_are_wrong_are_not_taken(tmp_path: Path, said: str) -> None:
    (tmp_path / "token").write_text(SECRET)
    with pytest.raises(Unproven):
        judged(Token(token=FromFile(path=str(tmp_path / "token"))), {"Authorization": said})


def test_a_secret_that_can_be_guessed_is_none(tmp_path: Path) -> None:
    """An empty or short one is refused when the port is opened, and no text tells it."""
    for secret, style in (
        ("", "plain"),
        ("hunter2", "plain"),
        ("whsec_" + base64.b64encode(b"short").decode(), "standard"),
        ("no base64!", "standard"),
    ):
        with pytest.raises(SecretMissing) as caught:
            Verifier(sender(tmp_path, secret, style=style), "")
        assert not secret or secret not in str(caught.value)
