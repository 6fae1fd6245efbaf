"""Somebody who writes a secret into the document, in any of the ways people do, never sees it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config import check, check_files, load, sample, schema
from gateway.config.drivers import Drivers
from gateway.config.reference import reference

CANARY = "hunter2-CANARY-8f3a"
HEAD = "holdfast: 1\ngateway: {group: g, name: n}\nuplinks:\n"
UPLINK = "  - {{name: a, type: mqtt, host: h, {}}}\n"

WAYS = [
    "password: {canary}",
    'password: "{canary}"',
    "password: [{canary}]",
    "password: {{value: {canary}}}",
    "password: {{from: {canary}}}",
    "password: {{from: file, value: {canary}}}",
    "password: {{from: file, path: x, plain: {canary}}}",
    "password: {{from: file, path: [{canary}]}}",
    "password: {{from: env, name: [{canary}]}}",
    "password: {{from: [{canary}]}}",
    "passwort: {canary}",
    "pasword: {{x: {canary}}}",
    "tls: {{key_password: {canary}}}",
    "tls: {canary}",
    "password: {{from: credential, name: '{canary} with a blank'}}",
    "password: {canary}, password: {canary}",
    "password: !secret {canary}",
    "password: {{from: file, path: {canary}",
]


@pytest.mark.parametrize("way", WAYS)
def test_no_problem_repeats_a_secret(way: str, drivers: Drivers) -> None:
    text = HEAD + UPLINK.format(way.format(canary=CANARY))
    assert CANARY in text
    site, problems = load(text.encode(), drivers=drivers)
    assert site is None
    assert problems
    assert CANARY not in repr(problems)


def test_a_secret_in_a_connection_is_not_repeated_either(drivers: Drivers) -> None:
    text = f"holdfast: 1\ngateway: {{group: g, name: n}}\nconnections: [{{name: a, type: modbus-tcp, host: h, password: {CANARY}}}]\n"
    site, problems = load(text.encode(), drivers=drivers)
    assert site is None
    assert CANARY not in repr(problems)


def test_what_a_reference_points_at_is_read_by_nobody_here(tmp_path: Path, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(CANARY)
    monkeypatch.setenv("HOLDFAST_TEST_PASSWORD", CANARY)
    text = (
        HEAD
        + UPLINK.format("password: {from: file, path: secret}")
        + UPLINK.format("password: {from: env, name: HOLDFAST_TEST_PASSWORD}").replace("name: a", "name: b", 1)
    )
    site, problems = load(text.encode(), drivers=drivers)
    assert problems == []
    assert site is not None
    everything = repr((site, check(site, drivers=drivers), check_files(site, tmp_path)))
    assert CANARY not in everything


def test_derived_pages_hold_no_secret(drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", CANARY)
    assert CANARY not in sample(drivers=drivers) + json.dumps(schema(drivers=drivers)) + reference(drivers=drivers)
