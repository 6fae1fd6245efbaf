"""The hosts of scenarios default and offline, looked at from outside: what they deliver, what is open, who may read what.

Runs at the controller's end of the site (``tools/machines.py run default ...``) with the consumer's certificate. What is read inside a
machine is read past its network and its SSH, by ``tools/machines.py exec``.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
NAME: Final = os.environ["MOLECULE_SCENARIO_NAME"]
SITE: Final = ROOT / "build/machines/sites" / NAME
CLIENTS: Final = SITE / "clients"
BROKER: Final = "10.77.0.13"
ADDRESSES: Final = {"gw-12": ("10.77.0.12", "fd77::c"), "gw-13": (BROKER, "fd77::d")}
HOSTS: Final = {path.parent.name: ADDRESSES[path.parent.name] for path in sorted(SITE.glob("*/suite"))}
"""The machines of the site; scenario quick has the second alone."""
DECLARED: Final = {"gw-12": {22, 8443}, "gw-13": {22, 8443, 8883}}
EVERY_PORT: Final = range(1, 65536 if NAME == "default" else 1025)
"""All of them take minutes; elsewhere it is the well-known ones, and those that somebody listens on."""
ANSWER_S: Final = 1.0
AT_ONCE: Final = 3000
LEAST_LYNIS: Final = 80
EXPOSURE: Final = "15"
"""In tenths, as systemd-analyze wants it."""

each_host = pytest.mark.parametrize("host", HOSTS)


def inside(host: str, command: str) -> str:
    words = [str(ROOT / "tools/machines.py"), "exec", NAME, host, "sh", "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{host}: {command}: {done.stdout} {done.stderr}"
    return done.stdout.strip()


def verdict(host: str, for_s: int) -> Any:  # Any: JSON
    """What the consumer says of the gateway."""
    words = ["consume", "plant-7", host, "--host", BROKER, "--port", "8883", "--ca-file", CLIENTS / "trusted.pem"]
    words += ["--cert-file", CLIENTS / "historian.pem", "--key-file", CLIENTS / "historian.pem", "--for", str(for_s), "--quiet"]
    done = subprocess.run([ROOT / ".venv/bin/holdfast", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])["verdict"]


@each_host
def test_values_arrive_at_the_broker_and_nothing_is_missing(host: str) -> None:
    said = verdict(host, 8)
    assert said["missing"] == 0
    assert {"meter-1", "meter-11"} <= set(said["devices"]), "the field's and the serial line's"


@each_host
def test_all_is_well_and_nothing_failed(host: str) -> None:
    inside(host, "holdfast health /etc/holdfast/site.json --wait 60")
    assert inside(host, "systemctl list-units --failed --no-legend --plain") == ""


def listening(host: str) -> set[int]:
    return {int(line.split()[3].rpartition(":")[2]) for line in inside(host, "ss -Hltn").splitlines()}


async def open_ports(address: str, ports: set[int]) -> set[int]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def answers(port: int) -> int | None:
        async with gate:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), ANSWER_S)
            except (OSError, TimeoutError):
                return None
            writer.close()
            return port

    return {port for port in await asyncio.gather(*map(answers, sorted(ports))) if port is not None}


@each_host
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_exactly_the_declared_ports_are_open(host: str, family: int) -> None:
    assert asyncio.run(open_ports(HOSTS[host][family], {*EVERY_PORT, *listening(host)})) == DECLARED[host]


@each_host
def test_what_is_not_declared_is_dropped_though_somebody_listens(host: str) -> None:
    inside(host, "systemd-run --quiet --collect --unit=stray python3 -m http.server 9999 --bind ::")
    try:
        with pytest.raises(TimeoutError):
            socket.create_connection((HOSTS[host][0], 9999), timeout=2)
    finally:
        inside(host, "systemctl stop stray")


@each_host
def test_the_service_is_confined_and_says_so(host: str) -> None:
    inside(host, f"systemd-analyze security --no-pager --threshold={EXPOSURE} holdfast.service")
    pid = inside(host, "systemctl show -p MainPID --value holdfast.service")
    status = dict(line.split(":\t", 1) for line in inside(host, f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert (status["CapBnd"], status["NoNewPrivs"], status["Seccomp"]) == ("0000000000000000", "1", "2")
    for place in ("/etc", "/usr", "/opt/holdfast"):
        refused = inside(host, f"nsenter -t {pid} -m touch {place}/x 2>&1 || true")
        assert "Read-only file system" in refused
    assert "/dev/pts/" in inside(host, f"ls -l /proc/{pid}/fd"), "the serial line is open"


@each_host
def test_who_may_read_what(host: str) -> None:
    places = {
        "/etc/holdfast": "750 root holdfast",
        "/etc/holdfast/site.json": "640 root holdfast",
        "/etc/holdfast/credentials": "700 root root",
        "/etc/holdfast/credentials/spare": "600 root root",
        "/etc/holdfast/tls/uplink.pem": "640 root holdfast",
        "/var/lib/holdfast": "700 holdfast holdfast",
        "/opt/holdfast/current/": "755 root root",
    }
    said = inside(host, f"stat -L -c '%a %U %G' {' '.join(places)}").splitlines()
    assert dict(zip(places, said, strict=True)) == places
    assert inside(host, "find /opt/holdfast /etc/holdfast -perm /6002 ! -type l") == "", "no setuid, nothing that all may write"
    assert inside(host, "find /opt/holdfast ! -user root") == ""


@each_host
def test_no_secret_is_told(host: str) -> None:
    secret = f"{NAME} keeps this secret"
    assert secret not in inside(host, "journalctl --no-pager")
    assert secret not in inside(host, "cat /etc/holdfast/site.json; ps -eo args; systemctl cat holdfast.service")
    inside(host, f"grep -q '{secret}' /etc/holdfast/credentials/spare")


@each_host
def test_the_api_speaks_tls_and_knows_nobody(host: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who it is does not matter here: it must refuse
    with socket.create_connection((HOSTS[host][1], 8443), timeout=10) as plain, context.wrap_socket(plain) as secured:
        secured.sendall(b"GET /api/v1/devices HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        assert b" 401 " in secured.recv(4096).split(b"\r\n")[0]


@each_host
def test_ssh_takes_no_password_and_the_technician_lands_in_the_console(host: str) -> None:
    quiet = [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-F",
        "/dev/null",
        "-i",
        "/dev/null",
    ]
    methods = subprocess.run(["ssh", *quiet, f"root@{HOSTS[host][0]}"], capture_output=True, text=True, check=False).stderr
    assert "Permission denied (publickey)" in methods
    words = [sys.executable, "-m", "tests.tui.outside", HOSTS[host][0], "--key", str(SITE / "key"), "--inside"]
    done = subprocess.run(
        [*words, str(ROOT / "tools/machines.py"), "exec", NAME, host], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_host
@pytest.mark.skipif(NAME != "default", reason="Lynis comes from a mirror, and takes its time")
def test_lynis_finds_the_host_hard(host: str) -> None:
    inside(host, "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -yqq install --no-install-recommends lynis >/dev/null 2>&1")
    report = inside(host, "lynis audit system --quick --no-colors --quiet >/dev/null 2>&1; cat /var/log/lynis-report.dat")
    index = next(int(line.partition("=")[2]) for line in report.splitlines() if line.startswith("hardening_index="))
    assert index >= LEAST_LYNIS
