"""Looking at the files that a site names: what is missing is said, and nothing is opened or read."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.config import Site, check_files, load
from gateway.config.drivers import Drivers
from protocols.contract import Problem

PLANT = Path(__file__).with_name("plant.yaml")
HEAD = "holdfast: 1\ngateway: {group: g, name: n}\n"


def site_of(text: str, drivers: Drivers) -> Site:
    site, problems = load((HEAD + text).encode(), drivers=drivers)
    assert problems == []
    assert site is not None
    return site


def test_the_documents_example_names_files_that_are_not_here(drivers: Drivers) -> None:
    site, _ = load(PLANT, drivers=drivers)
    assert site is not None
    missing = [one.path for one in check_files(site, PLANT.parent) if one.severity == "error"]
    assert missing == ["uplinks[0].tls.ca_file", "uplinks[0].tls.cert_file", "uplinks[0].tls.key_file"]


def test_files_that_are_there_are_no_problem(tmp_path: Path, drivers: Drivers) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem", "secret"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    rest = "port: 8883, tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: ./key.pem}, username: u, password: {from: file, path: secret}"
    assert check_files(site_of(f"uplinks: [{{name: a, type: mqtt, host: localhost, {rest}}}]", drivers), tmp_path) == []


def files(rest: str, base: Path, drivers: Drivers) -> list[Problem]:
    return check_files(site_of(f"uplinks: [{{name: a, type: mqtt, host: localhost, {rest}}}]", drivers), base)


def test_a_secret_file_that_everybody_may_read_is_a_warning(tmp_path: Path, drivers: Drivers) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    (problem,) = files("password: {from: file, path: secret}", tmp_path, drivers)
    assert (problem.path, problem.severity) == ("uplinks[0].password.path", "warning")


def test_a_secret_that_is_missing_is_said(tmp_path: Path, drivers: Drivers) -> None:
    (problem,) = files("password: {from: file, path: secret}", tmp_path, drivers)
    assert (problem.path, problem.severity) == ("uplinks[0].password.path", "error")
    (problem,) = files("password: {from: env, name: HOLDFAST_TEST_NOT_SET}", tmp_path, drivers)
    assert (problem.path, problem.severity) == ("uplinks[0].password.name", "warning")
    assert files("password: {from: credential, name: broker}", tmp_path, drivers) == []


def test_a_file_with_an_impossible_name_is_a_problem_and_not_a_crash(tmp_path: Path, drivers: Drivers) -> None:
    (problem,) = files('password: {from: file, path: "a\\0b"}', tmp_path, drivers)
    assert problem.path == "uplinks[0].password.path"


def test_a_folder_or_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path, drivers: Drivers) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (".", "pipe"):
        (problem,) = files(f"port: 8883, tls: {{ca_file: {path}}}", tmp_path, drivers)
        assert problem.message.endswith("is not a file")


def test_a_serial_port_that_is_not_there_is_a_warning(tmp_path: Path, drivers: Drivers) -> None:
    site = site_of("connections: [{name: a, type: modbus-rtu, serial_port: /dev/no-such-port}]", drivers)
    assert [(one.path, one.severity) for one in check_files(site, tmp_path)] == [("connections[0].serial_port", "warning")]
