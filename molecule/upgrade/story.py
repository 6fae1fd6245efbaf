"""The side effects of the scenario, one chapter after the other, each looked at from the controller's end.

    export PYTHONPATH=molecule/shared MOLECULE_SCENARIO_NAME=upgrade
    tools/machines.py run upgrade .venv/bin/python molecule/upgrade/story.py [CHAPTER ...]

It runs the collection's playbooks as a technician does, and asks the machines themselves what they run. Consumers that prepare.yml
started listen all the time; verify.yml reads their verdicts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from typing import Any, Final

from technician import ROOT, SITE, machine, on, play, say, started, tell, until  # of molecule/shared

BUNDLES: Final = ROOT / "build/molecule/upgrade"
HOSTS: Final = ("gw-1", "gw-2", "gw-3", "gw-4", "gw-5")
BEFORE, THIS, FAILING = "0.1.0", re.findall(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text())[0], "0.3.0"
OUTAGE: Final = "add table inet outage; add chain inet outage in {{ type filter hook input priority 0; }}; add rule inet outage in {0} drop"


def release(host: str) -> str:
    return on(host, "basename $(readlink /opt/holdfast/current)")


def runs(host: str) -> str:
    """The release whose Python the process is, whatever the link says; empty while it is being started."""
    pid = on(host, "systemctl show --property=MainPID --value holdfast.service")
    found = re.match(r"/opt/holdfast/releases/([^/]+)/", on(host, f"tr '\\0' '\\n' </proc/{pid}/cmdline | head -1"))
    return found[1] if found else ""  # it is just being started


def life(host: str) -> str:
    """Another one after each start of the service."""
    return on(host, "systemctl show --property=InvocationID --value holdfast.service")


def pending(host: str) -> int:
    told: dict[str, Any] = json.loads(on(host, "holdfast journal stat /etc/holdfast/site.json"))  # Any: JSON
    return sum(lane["pending"] for lane in told["readers"]["cloud"].values())


def excused(host: str) -> set[str]:
    """What was not well on the host before its upgrade, and so need not be afterwards."""
    told: dict[str, Any] = json.loads(on(host, "cat /opt/holdfast/guard/baseline.json"))  # Any: JSON
    return {check["name"] for check in told["checks"] if not check["ok"]}


def outage(rule: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=OUTAGE.format(rule), text=True, check=True)


def over() -> None:
    subprocess.run(["nft", "delete", "table", "inet", "outage"], check=True)


# -- chapters


def forth() -> None:
    """To this release, while the canary cannot reach its broker: what waits is carried over, and the uplink is excused there alone."""
    outage("ip saddr 10.77.0.11 tcp dport 1883")
    until("the canary has records that wait", lambda: pending("gw-1") >= 20)
    told = play("upgrade", "-e", '{"holdfast_batches": [1, "100%"]}')
    assert f"gw-1: {BEFORE} -> {THIS}" in told, told[-3000:]
    assert {host: excused(host) for host in HOSTS} == {host: {"uplink:cloud"} if host == HOSTS[0] else set() for host in HOSTS}
    assert {host: release(host) for host in HOSTS} == dict.fromkeys(HOSTS, THIS)
    waits = pending("gw-1")
    assert waits >= 20, waits
    say(f"{waits} records wait at the canary, after the upgrade")
    over()
    until("what waited has arrived", lambda: pending("gw-1") < 10)


def nothing_to_do() -> None:
    """A second time changes nothing, and restarts nothing."""
    lives = {host: life(host) for host in HOSTS}
    told = play("upgrade")
    assert re.search(r"changed=[1-9]", told) is None, told[-1500:]
    assert lives == {host: life(host) for host in HOSTS}


def back() -> None:
    """To the release before, with what this one wrote."""
    told = play("rollback")
    assert "Every record of the journal is kept and delivered" in told, told[-3000:]
    assert {host: release(host) for host in HOSTS} == dict.fromkeys(HOSTS, BEFORE)


def alone() -> None:
    """The controller dies in the soak: one host goes back when its time is over, another when it is started anew."""
    words = started("upgrade", "--limit", "gw-2,gw-5", "-e", '{"holdfast_batches": ["100%"]}')
    words += ["-e", "gateway_soak_s=600 gateway_guard_s=150"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT) as controller:
        for host in ("gw-2", "gw-5"):
            until(f"{host} runs {THIS}, and is watched", lambda host=host: runs_armed(host))  # type: ignore[misc]  # a default binds it
        controller.kill()
    assert {release("gw-2"), release("gw-5")} == {THIS}
    machine("kill", "gw-5")
    machine("start", "gw-5")
    machine("wait", "gw-5")
    until("gw-5 went back as it was started anew", lambda: release("gw-5") == BEFORE)
    until("gw-2 went back by itself", lambda: release("gw-2") == BEFORE)
    for host in ("gw-2", "gw-5"):
        until(f"{host} runs {BEFORE} again", lambda host=host: runs(host) == BEFORE)  # type: ignore[misc]  # as above
        assert on(host, "ls /opt/holdfast/guard").split() == ["back", "baseline.json", "guard", "lock"]
        assert on(host, "cat /opt/holdfast/guard/back").startswith(f"went back from {THIS} to {BEFORE} at ")


def runs_armed(host: str) -> bool:
    armed = on(host, "if [ -e /opt/holdfast/guard/armed ]; then echo yes; fi")
    return bool(armed) and release(host) == THIS and on(host, "systemctl is-active holdfast.service || :") == "active"


def again() -> None:
    """The next run mends what the broken one left."""
    play("upgrade", "-e", '{"holdfast_batches": ["100%"]}')
    assert {host: release(host) for host in HOSTS} == dict.fromkeys(HOSTS, THIS)


def failing() -> None:
    """A release that fails on one of five: that one is back by itself, and the fleet stops."""
    lives = {host: life(host) for host in HOSTS}
    kept = on("gw-3", "sha256sum /etc/holdfast/site.json /etc/systemd/system/holdfast.service")
    told = play(
        *("upgrade", "-e", f"gateway_bundle={BUNDLES / 'failing.bundle'}", "-e", "gateway_healthy_within_s=60"),
        *("-e", '{"holdfast_batches": [1, 2, "100%"]}'),
        fails=True,
    )
    assert f"gw-3 is not upgraded to {FAILING}. Wait until the gateway is well: uplink:cloud:" in told, told[-5000:]
    assert f"It is back on {THIS}, and well as before. Hosts not touched so far: gw-4, gw-5." in told, told[-5000:]
    assert "The fleet stops: gw-3 failed, which is more than 0 % of 5 hosts. Not touched: gw-4, gw-5." in told, told[-5000:]
    assert {host: release(host) for host in HOSTS} == {"gw-1": FAILING, "gw-2": FAILING, "gw-3": THIS, "gw-4": THIS, "gw-5": THIS}
    assert {host for host in HOSTS if life(host) == lives[host]} == {"gw-4", "gw-5"}
    assert kept == on("gw-3", "sha256sum /etc/holdfast/site.json /etc/systemd/system/holdfast.service")
    for host in ("gw-4", "gw-5"):
        assert FAILING not in on(host, "ls /opt/holdfast/releases").split()


def judged() -> None:
    """No gateway lost a reading, says who consumed them all the time; nothing of an upgrade is left half done. For verify.yml."""
    for host in HOSTS:
        until(f"all that {host} has is delivered", lambda host=host: pending(host) < 10)  # type: ignore[misc]  # as above
        assert on(host, "systemctl is-enabled holdfast-upgrade-guard.service || :") == "disabled"
        assert not {"before", "armed", "going"} & set(on(host, "ls /opt/holdfast/guard").split())
        assert on(host, "systemctl list-units --failed --no-legend --plain 'holdfast*'") == ""
    acknowledged = {host: told_of(host) for host in HOSTS}
    for host in HOSTS:
        subprocess.run([str(ROOT / "tools/machines.py"), "end", SITE, f"consumer-{host}"], check=True)
        log = ROOT / f"build/machines/sites/{SITE}/consumer-{host}.log"
        verdict: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])["verdict"]  # Any: JSON
        say(f"{host}: { ({each: verdict[each] for each in ('received', 'duplicate', 'missing', 'lost', 'marks', 'marks_wrong')}) }")
        assert (verdict["missing"], verdict["lost"], verdict["marks_wrong"], verdict["malformed"]) == (0, {}, 0, 0), verdict
        assert verdict["received"] >= acknowledged[host] > 100, (verdict, acknowledged[host])


def told_of(host: str) -> int:
    """How many records the gateway believes to have delivered."""
    told: dict[str, Any] = json.loads(on(host, "holdfast journal stat /etc/holdfast/site.json"))  # Any: JSON
    lanes = told["readers"]["cloud"].values()
    assert not any(lane["dropped"] or lane["quarantined"] for lane in lanes), told
    return sum(lane["acknowledged"] for lane in lanes)


CHAPTERS: Final = (forth, nothing_to_do, back, alone, again, failing)


if __name__ == "__main__":
    tell(CHAPTERS, (judged,), sys.argv[1:])
