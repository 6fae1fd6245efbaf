"""What watches a gateway, told from outside: nothing is open, everything is fetched, and who dies is missed.

PYTHONPATH=molecule/shared:. .venv/bin/python molecule/observability/story.py [CHAPTER ...]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

from technician import ROOT, SCENARIO, SITE, on, play, say, tell, until

from tests.ansible.test_observability import OTHERS, told

HOSTS: Final = ("gw-12", "gw-13")
PORTS: Final = (9090, 9100)
UNITS: Final = ("prometheus.service", "prometheus-node-exporter.service", "holdfast-release.service")
WORST: Final = 1.5
BORN_LATER: Final = r"dropped_total|errors_total|commands_total|live_cut"
"""Counters by reason, which are there from their first count."""


def fetched(host: str, path: str) -> Any:  # Any: JSON
    """What Prometheus on ``host`` answers there, asked on its loopback."""
    script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/{path}', timeout=30).read().decode())"
    return json.loads(on(host, f'python3 -c "{script}"'))["data"]


def asked(host: str, expression: str) -> list[dict[str, Any]]:  # Any: JSON
    found: list[dict[str, Any]] = fetched(host, f"query?query={quote(expression, safe='')}")["result"]
    return found


def holds(host: str, expression: str) -> bool:
    return bool(asked(host, expression))


def firing(host: str) -> set[str]:
    return {each["labels"]["alertname"] for each in fetched(host, "alerts")["alerts"] if each["state"] == "firing"}


def fleet() -> None:
    words = ["ansible-playbook", f"--inventory={SCENARIO / 'inventory'}", str(SCENARIO / "fleet.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


def plant(word: str) -> None:
    command = [".venv/bin/python", "-m", "tests.peers.plant", "--broker"] if word == "background" else []
    subprocess.run([str(ROOT / "tools/machines.py"), word, SITE, "plant", *command], check=True, cwd=ROOT)


def nothing_is_open() -> None:
    """Prometheus and the node exporter listen on loopback alone, hardened as they are meant to be."""
    for host in HOSTS:
        listening = on(host, "ss -Hltn | awk '{print $4}'").split()
        assert {f"127.0.0.1:{port}" for port in PORTS} <= set(listening), listening
        assert not [each for each in listening if each.rsplit(":", 1)[1] in map(str, PORTS) and not each.startswith("127.0.0.1:")]
        for unit in UNITS:
            score = float(on(host, f"systemd-analyze security --no-pager {unit} | grep -oE '[0-9.]+ [A-Z]+ ' | tail -1").split()[0])
            assert score <= WORST, f"{host}: {unit} has {score}"
            assert "holdfast" not in on(host, f"systemd-analyze verify {unit} 2>&1 || true"), (
                f"{host}: {unit} has settings that are ignored"
            )
            say(f"{host}: {unit} {score}")


def everything_is_fetched() -> None:
    """Every metric of the reference that a gateway has at once, and all that rules ask of others."""
    names = {name for name in told() if not re.search(BORN_LATER, name)}
    for host in HOSTS:
        all_is_fetched(host, (names | OTHERS) - {"ALERTS"})


def all_is_fetched(host: str, names: Collection[str]) -> None:
    until(f"{host}: the gateway and the host are fetched", lambda: len(asked(host, "up == 1")) == 2)
    until(f"{host}: records come", lambda: holds(host, "sum(rate(holdfast_journal_appended_total[1m])) > 0"))
    missing = [name for name in sorted(names) if not holds(host, f"count({name})")]
    assert not missing, f"{host}: nobody tells {missing}"
    assert holds(host, 'holdfast_host_release{version!=""}')
    assert holds(host, 'node_filesystem_readonly{mountpoint="/"} == 0'), "its own mounts are told, which are read-only, not the host's"
    broken = [rule for group in fetched(host, "rules")["groups"] for rule in group["rules"] if rule["health"] == "err"]
    assert not broken, broken


def who_dies_is_missed() -> None:
    """When plant and broker die, the alerts fire that say so; when both are back, they end."""
    plant("end")
    for host in HOSTS:
        it_is_missed(host)
    plant("background")
    for host in HOSTS:
        it_is_back(host)


DEAD: Final = frozenset({"HoldfastUplinkDown", "HoldfastConnectionDown"})
LOST: Final = frozenset({"HoldfastRecordsDropped", "HoldfastRecordsQuarantined", "HoldfastLedgerUnbalanced", "HoldfastUplinkRecordsLost"})


def it_is_missed(host: str) -> None:
    until(f"{host}: {', '.join(sorted(DEAD))} fire", lambda: firing(host) >= DEAD)


def it_is_back(host: str) -> None:
    until(f"{host}: they have ended", lambda: not DEAD & firing(host))
    assert not LOST & firing(host), "and no record was lost"


def a_fleet_is_watched() -> None:
    """One Prometheus fetches from another host's API, with a token that nobody reads, under that gateway's authority."""
    fleet()
    until("gw-13: gw-12 is fetched by its API", lambda: holds("gw-13", 'up{job="holdfast",gateway="gw-12"} == 1'))
    assert len(asked("gw-13", "count by (gateway) (holdfast_journal_bytes)")) == 2
    token = on("gw-13", "cat /etc/holdfast-observability/credentials/gw-12")
    assert len(token) > 20
    assert on("gw-13", "stat -c '%U %a' /etc/holdfast-observability/credentials/gw-12") == "root 600"
    for where in ("/etc/prometheus", "/etc/systemd/system"):
        assert on("gw-13", f"grep -rlF -e '{token}' {where} || true") == "", f"the token stands below {where}"
    assert token not in on("gw-13", "ps axww")
    assert token not in json.dumps(fetched("gw-13", "status/config"))


def what_is_off_is_off() -> None:
    """Switched off, both are stopped and stay so; nothing of the role's settings is left, and a second play changes nothing."""
    off = ("--tags=observability", "--limit=gw-12", "--extra-vars=observability_prometheus=false observability_node_exporter=false")
    play("install", *off)
    assert on("gw-12", "systemctl is-active prometheus prometheus-node-exporter holdfast-release.timer || true").split() == ["inactive"] * 3
    assert on("gw-12", "systemctl is-enabled prometheus prometheus-node-exporter || true").split() == ["disabled"] * 2
    assert on("gw-12", "ls -d /etc/prometheus/holdfast /etc/systemd/system/prometheus*.d/holdfast.conf 2>/dev/null || true") == ""
    assert re.search(r"gw-12 .*changed=0 ", play("install", *off))
    play("install", *off[:2])
    assert on("gw-12", "systemctl is-active prometheus prometheus-node-exporter").split() == ["active"] * 2


if __name__ == "__main__":
    tell((nothing_is_open, everything_is_fetched, who_dies_is_missed, a_fleet_is_watched, what_is_off_is_off), (), sys.argv[1:])
