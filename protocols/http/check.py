"""Everything that is wrong with an HTTP connection beyond what types and limits can say: all of it, with path and advice. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from yarl import URL

from protocols.contract import Problem
from protocols.http import config
from protocols.http.config import Http, Webhook
from protocols.http.guard import Guard
from protocols.http.write import told
from protocols.model import Kind
from protocols.options import error, unique_names, warning
from protocols.payload import Format
from protocols.payload import check as payload_check
from protocols.payload.writing import MARK
from protocols.values import RANGE, Unwritable, Value

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
VALUE: Final = re.compile(r"[\x20-\x7e\t]{0,1024}")
OURS: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect", "keep-alive", "proxy-connection"}
)
"""Headers that frame the message: a document that sets them breaks it."""
SECRET: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
BUSY: Final = 0.8


def check_http(options: Http) -> list[Problem]:
    """All problems of ``options``; paths are relative to it."""
    problems = [*_url(options), *_auth(options), *unique_names(options.devices, "devices", "device")]
    for at, device in enumerate(options.devices):
        problems.extend(_device(device, f"devices[{at}]"))
    return problems


def _url(options: Http) -> Iterator[Problem]:
    try:
        url = URL(options.url)
        host, port = url.host, url.port
    except ValueError as trouble:
        yield error(
            "url", f"{options.url[:60]!r} is no address ({str(trouble)[:60]})", "write scheme://host:port, as http://192.0.2.7:8080"
        )
        return
    if url.user or url.password:
        yield error("url", "there is a user name or password in it", "take it out, and write auth: secrets never stand in a document")
    if "?" in options.url or "#" in options.url:
        yield error("url", "a ? or # does not belong here", "write what is asked for as path and query of a request")
    if not host or not port:
        yield error("url", "it names no host", "write scheme://host:port, as http://192.0.2.7:8080")
        return
    if re.fullmatch(r"[0-9.]+|.*:.*", host) and (why := Guard(allow_local=options.allow_local).problem(host)):
        yield error("url", why, "write the device's own address, or allow_local: true if this machine is meant")
    if url.scheme == "http" and (options.tls.ca_file or options.tls.cert_file):
        yield error("tls", "there are certificates, and url is http://", "write https://, or take tls away")


def _auth(options: Http) -> Iterator[Problem]:
    if options.auth is None or isinstance(options.auth, config.Digest):
        return
    if options.url.lower().startswith("http:"):
        what = {config.Basic: "name and password", config.Bearer: "the token", config.ApiKey: "the key"}[type(options.auth)]
        yield warning("auth", f"{what} cross the network in the clear", "write https:// if the device can, or digest")


def _device(device: config.Device, path: str) -> Iterator[Problem]:
    yield from _headers(device.headers, f"{path}.headers")
    seen: dict[str, str] = {}
    for at, request in enumerate(device.requests):
        where = f"{path}.requests[{at}]"
        yield from _request(request, where)
        for place, tag in enumerate(request.tags):
            first = seen.setdefault(tag.name, f"{where}.tags[{place}]")
            if first != f"{where}.tags[{place}]" and not first.startswith(f"{where}."):  # within one request payload_check says it
                yield error(f"{where}.tags[{place}].name", f"{first} is called {tag.name!r} too", "give each tag of a device its own name")


def _request(request: config.Request, path: str) -> Iterator[Problem]:
    if "#" in request.path or not URL_PATH.fullmatch(request.path):
        yield error(
            f"{path}.path", f"{request.path[:60]!r} is no path", "percent-encode what is no URL character: a blank is %20, # is %23"
        )
    if request.format is Format.SPARKPLUG:
        yield error(f"{path}.format", "Sparkplug needs births, which HTTP does not bring", "write the format that the device answers in")
    if request.body and request.method == "GET":
        yield error(f"{path}.body", "a GET has no body", "write method: POST, or query")
    if not request.tags:
        yield warning(f"{path}.tags", "it has no tags, so it is never asked", "write tags, or take the request away")
    yield from _headers(request.headers, f"{path}.headers")
    yield from payload_check(request.tags, request, f"{path}.tags", path)
    for at, tag in enumerate(request.tags):
        yield from _write(tag, request, f"{path}.tags[{at}]")


URL_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~:/?@!$&'()*+,;=|{}\[\]-]|%[0-9A-Fa-f]{2})*")
"""Path and query characters (RFC 3986, 3.3), and those that devices use besides."""


def _write(tag: config.Tag, request: config.Request, path: str) -> Iterator[Problem]:
    write = tag.write
    if tag.writable and write is None:
        yield error(
            f"{path}.write", "a writable tag needs to say by which request it is written", "write: {path: /api/setpoint, method: PUT}"
        )
    if write is None:
        return
    if not tag.writable:
        yield warning(f"{path}.write", "the tag is not writable", "write writable: true, or take write away")
    if "#" in write.path or not URL_PATH.fullmatch(write.path.replace(MARK, "")):
        yield error(f"{path}.write.path", f"{write.path[:60]!r} is no path", "percent-encode what is no URL character, but for {value}")
    if write.form and MARK not in write.form:
        yield error(f"{path}.write.form", "it has no {value}: every command would say the same", "write form: temp={value}")
    if write.method == "GET" and MARK not in write.path:
        yield error(f"{path}.write.path", "a GET carries the value in its path, and there is no {value}", "write path: /set?temp={value}")
    if write.method == "GET" and (write.form or tag.write_as):
        yield error(f"{path}.write.method", "a GET has no body", "write method: POST, or take form and write_as away")
    try:
        told(_example(tag.kind), tag, write, request)
    except Unwritable as trouble:
        yield error(f"{path}.write.format", str(trouble), "write a format in which a single value can be sent: json or text")


def _example(kind: Kind) -> Value:
    if kind is Kind.BOOL:
        return True
    if kind is Kind.STRING:
        return "text"
    if kind is Kind.BYTES:
        return b"bytes"
    return 1 if kind in RANGE else 1.0


def _headers(headers: Mapping[str, str], path: str) -> Iterator[Problem]:
    for name, value in headers.items():
        where = f"{path}.{name}"
        if not NAME.fullmatch(name):
            yield error(path, f"{name[:60]!r} is no name of a header", "write letters, digits and -, as X-Api-Version")
        elif not VALUE.fullmatch(value):
            yield error(where, "the value has signs that no header may have", "write one line of printable ASCII, at most 1024 long")
        elif name.lower() in OURS:
            yield error(where, f"{name} is written by the gateway itself", "take it away")
        elif name.lower() in SECRET:
            yield error(where, f"{name} is a secret, and a document holds none", "write auth with a reference to where it lies")


# ------------------------------------------------------------------------------------------------------- the webhook


def check_webhook(options: Webhook) -> list[Problem]:
    """All problems of ``options``; paths are relative to it."""
    problems = [*unique_names(options.devices, "devices", "device")]
    paths: dict[str, int] = {}
    for at, device in enumerate(options.devices):
        where = f"devices[{at}]"
        if paths.setdefault(device.path, at) != at:
            message = f"devices[{paths[device.path]}] posts to {device.path} too"
            problems.append(error(f"{where}.path", message, "give each device a path of its own"))
        if device.format is Format.SPARKPLUG:
            advice = "write the format that the device posts"
            problems.append(error(f"{where}.format", "Sparkplug needs births, which a webhook does not bring", advice))
        problems.extend(_sender(device.auth, options, f"{where}.auth"))
        problems.extend(payload_check(device.tags, device, f"{where}.tags", where))
        for place, tag in enumerate(device.tags):
            if tag.writable:
                message = "a webhook only takes what is posted: nothing can be written"
                problems.append(error(f"{where}.tags[{place}].writable", message, "take writable away, or read the device by type http"))
    problems.extend(_sender(options.auth, options, "auth"))
    if options.tls is None and options.listen_host not in ("127.0.0.1", "::1", "localhost"):
        advice = "write tls, or put a proxy that ends TLS in front and listen on 127.0.0.1"
        problems.append(warning("tls", "values cross the network in the clear, for everybody to read", advice))
    return problems


def _sender(auth: config.SenderAuth | None, options: Webhook, path: str) -> Iterator[Problem]:
    is_shown = isinstance(auth, config.Token | config.Registered)
    if is_shown and options.tls is None and options.listen_host not in ("127.0.0.1", "::1", "localhost"):
        yield error(path, "a token that crosses the network in the clear is everybody's", "write tls, or scheme: hmac")
    if isinstance(auth, config.Signed) and auth.style == "github":
        message = "this style signs no time: who has heard a message once can post it again"
        yield warning(f"{path}.style", message, "write tls, or another style if the sender can")
    if isinstance(auth, config.Signed) and auth.timestamp_header and auth.style != "plain":
        yield warning(f"{path}.timestamp_header", f"the style {auth.style} has its time in its own place", "take it away")
