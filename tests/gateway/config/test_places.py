"""Relative paths in a site document start from its folder, not from where the service happens to stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config import Site, judge
from gateway.config.faces import OpcuaFace


def judged(path: Path, **more: object) -> Site:
    path.write_text(json.dumps({"holdfast": 1, "gateway": {"group": "g", "name": "n"}, **more}))
    site, problems = judge(path)
    assert site is not None, problems
    return site


def test_files_and_folders_of_drivers_and_uplinks_start_at_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    tls = {"ca_file": "certs/ca.pem", "cert_file": "/etc/gw.pem"}
    site = judged(
        tmp_path / "site.yaml",
        connections=[{"name": "a", "type": "modbus-tls", "host": "plc.example.com", "tls": tls}],
        uplinks=[
            {
                "name": "u",
                "type": "mqtt",
                "host": "broker.example.com",
                "username": "x",
                "password": {"from": "file", "path": "secrets/password"},
                "tls": {},
            }
        ],
        faces=[{"name": "mes", "type": "opcua-server", "security": {"folder": "pki"}}],
    )
    assert site.connections[0].tls.ca_file == str(tmp_path / "certs/ca.pem")
    assert site.connections[0].tls.cert_file == "/etc/gw.pem"
    assert site.connections[0].tls.key_file == ""
    assert getattr(site.uplinks[0].password, "path", "") == str(tmp_path / "secrets/password")
    assert isinstance(site.faces[0], OpcuaFace)
    assert site.faces[0].security.folder == str(tmp_path / "pki")
    assert site.journal.path == "./data/journal", "its user resolves it"


def test_what_names_no_place_stays_the_very_object(tmp_path: Path) -> None:
    site = judged(tmp_path / "site.yaml", connections=[{"name": "a", "type": "modbus-tcp", "host": "certs"}])
    assert site.connections[0].host == "certs"
