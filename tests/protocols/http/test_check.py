"""What is wrong with HTTP connections, each with its path and advice; and what the types alone refuse."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from protocols.contract import Problem
from protocols.http.check import check_http, check_webhook
from protocols.http.config import Http, Webhook

SECRET: Final = {"from": "file", "path": "/etc/holdfast/secret"}
TAG: Final = {"name": "a", "kind": "float64", "at": "$.a"}


def client(
    *, request: dict[str, Any] | None = None, tag: dict[str, Any] | None = None, device: dict[str, Any] | None = None, **more: Any
) -> Http:  # Any: JSON
    asked = {"path": "/v", "tags": [{**TAG, **(tag or {})}], **(request or {})}
    one = {"name": "one", "requests": [asked], **(device or {})}
    return msgspec.convert({"type": "http", "name": "c", "url": "http://192.0.2.7", "devices": [one], **more}, Http)


def hooks(*, tag: dict[str, Any] | None = None, device: dict[str, Any] | None = None, **more: Any) -> Webhook:  # Any: JSON
    one = {"name": "one", "path": "/h", "tags": [{**TAG, **(tag or {})}], **(device or {})}
    return msgspec.convert(
        {"type": "webhook", "name": "w", "auth": {"scheme": "hmac", "secret": SECRET}, "devices": [one], **more}, Webhook
    )


def told(problems: list[Problem], severity: str = "error") -> set[str]:
    assert all(problem.message and problem.advice for problem in problems)
    return {problem.path for problem in problems if problem.severity == severity}


def test_what_is_right_has_no_problem() -> None:
    assert check_http(client()) == []
    assert check_webhook(hooks()) == []


WRITABLE: Final = {"writable": True}
AT: Final = "devices[0].requests[0]"


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"url": "http://user:canary@192.0.2.7"}, "url"),
        ({"url": "http://192.0.2.7/?key=1"}, "url"),
        ({"url": "http://192.0.2.7/#a"}, "url"),
        ({"url": "http://:80"}, "url"),
        ({"url": "http://192.0.2.7:99999"}, "url"),
        ({"url": "http://127.0.0.1:8080"}, "url"),
        ({"url": "http://[::1]/"}, "url"),
        ({"url": "http://[::ffff:127.0.0.1]/"}, "url"),
        ({"url": "http://169.254.169.254", "allow_local": True}, "url"),
        ({"url": "http://0.0.0.0", "allow_local": True}, "url"),
        ({"tls": {"ca_file": "a.pem"}}, "tls"),
        ({"device": {"headers": {"Authorization": "Bearer canary"}}}, "devices[0].headers.Authorization"),
        ({"request": {"headers": {"content-length": "5"}}}, f"{AT}.headers.content-length"),
        ({"request": {"headers": {"X": "a\nb"}}}, f"{AT}.headers.X"),
        ({"request": {"headers": {"X y": "a"}}}, f"{AT}.headers"),
        ({"request": {"path": "/a%zz"}}, f"{AT}.path"),
        ({"request": {"format": "sparkplug"}}, f"{AT}.format"),
        ({"request": {"body": "x"}}, f"{AT}.body"),
        ({"tag": {"at": "$[", "from_text": False}, "request": {"format": "json"}}, None),
        ({"tag": WRITABLE}, f"{AT}.tags[0].write"),
        ({"tag": {**WRITABLE, "write": {"path": "/s", "method": "GET"}}}, f"{AT}.tags[0].write.path"),
        ({"tag": {**WRITABLE, "write": {"path": "/s", "form": "a=1"}}}, f"{AT}.tags[0].write.form"),
        ({"tag": {**WRITABLE, "write": {"path": "/s#{value}"}}}, f"{AT}.tags[0].write.path"),
        ({"tag": {**WRITABLE, "write_as": "{value}", "write": {"path": "/s?v={value}", "method": "GET"}}}, f"{AT}.tags[0].write.method"),
        ({"tag": {**WRITABLE, "write": {"path": "/s", "format": "sparkplug"}}}, f"{AT}.tags[0].write.format"),
    ],
)
def test_what_is_wrong_with_a_client_is_told_with_its_place(wrong: dict[str, Any], path: str | None) -> None:
    problems = check_http(client(**wrong))
    assert path is None or path in told(problems), problems
    assert "canary" not in str(problems), "what may be a secret is not repeated"


def test_what_a_field_engineer_would_ask_about_is_a_warning() -> None:
    basic = {"scheme": "basic", "username": "u", "password": SECRET}
    assert told(check_http(client(auth=basic)), "warning") == {"auth"}
    assert check_http(client(auth=basic, url="https://192.0.2.7")) == []
    assert check_http(client(auth={**basic, "scheme": "digest"})) == []
    assert told(check_http(client(request={"tags": []})), "warning") == {f"{AT}.tags"}
    assert told(check_webhook(hooks(listen_host="0.0.0.0")), "warning") == {"tls"}
    assert told(check_webhook(hooks(auth={"scheme": "hmac", "style": "github", "secret": SECRET})), "warning") == {"auth.style"}


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"tag": WRITABLE}, "devices[0].tags[0].writable"),
        ({"device": {"format": "sparkplug"}}, "devices[0].format"),
        ({"auth": {"scheme": "bearer", "token": SECRET}, "listen_host": "0.0.0.0"}, "auth"),
        ({"device": {"auth": {"scheme": "bearer", "token": SECRET}}, "listen_host": "10.0.0.1"}, "devices[0].auth"),
    ],
)
def test_what_is_wrong_with_a_webhook_is_told_with_its_place(wrong: dict[str, Any], path: str) -> None:
    assert path in told(check_webhook(hooks(**wrong)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "file:///etc/passwd"},
        {"url": "ftp://192.0.2.7"},
        {"url": "http://a b"},
        {"url": "http://a\r\nb"},
        {"url": ""},
        {"auth": {"scheme": "basic", "username": "a:b", "password": SECRET}},
        {"auth": {"scheme": "bearer", "token": "canary"}},
        {"auth": {"scheme": "none"}},
        {"request": {"path": "no-slash"}},
        {"request": {"path": "/a b"}},
        {"request": {"path": "/a\r\nX: y"}},
        {"request": {"method": "DELETE"}},
        {"request": {"max_bytes": 10**9}},
        {"redirects": 100},
        {"connections": 100},
    ],
)
def test_what_the_types_refuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        client(**wrong)


def test_a_webhook_without_proof_cannot_be_written() -> None:
    for auth in (None, {"scheme": "none"}, {}):
        with pytest.raises(msgspec.ValidationError):
            hooks(auth=auth)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "webhook", "name": "w", "devices": []}, Webhook)
