"""The side effects of the scenario, one chapter after the other, each looked at from the controller's end.

export PYTHONPATH=molecule/shared MOLECULE_SCENARIO_NAME=remove
tools/machines.py run remove .venv/bin/python molecule/remove/story.py [CHAPTER ...]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from technician import ROOT, SITE, on, play, say, tell, until  # of molecule/shared

HOSTS: Final = ("gw-12", "gw-13")
FOLDER: Final = ROOT / "build/molecule/remove"
ANOTHER: Final = "another passphrase altogether"
OURS: Final = ("/etc/holdfast", "/var/lib/holdfast")
"""What stays where data is kept."""
OF_OTHERS: Final = (
    *("/proc", "/sys", "/run", "/dev", "/tmp", "/var/tmp", "/root/.ansible"),
    *("/var/log", "/var/cache", "/var/lib/systemd"),  # the host's own log and clocks, which a removal leaves
    *("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock", "/etc/subuid-", "/etc/subgid-"),
    "/etc/machine-id",
)
"""What changes on a host by itself, or by Ansible."""


def files(host: str) -> list[str]:
    """Every file on the host with its kind, mode, owner and content, but what is others'."""
    left_out = " -o ".join(f"-path {each}" for each in OF_OTHERS)
    listed = f"find / -xdev \\( {left_out} \\) -prune -o -name __pycache__ -prune -o -printf '%y %m %U:%G %p %l\\n'"
    content = "md5sum /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/systemd/*.conf"
    return sorted(on(host, f"{listed}; {content}").splitlines())


def more(host: str) -> list[str]:
    """What is there that was not, and what is not that was."""
    before = set((FOLDER / f"{host}.plain").read_text().splitlines())
    now = set(files(host))
    return sorted([*(f"+ {line}" for line in now - before), *(f"- {line}" for line in before - now)])


def stat(host: str) -> dict[str, Any]:  # Any: JSON
    told: dict[str, Any] = json.loads(on(host, "holdfast journal stat /etc/holdfast/site.json"))  # Any: JSON
    return told


def pending(host: str) -> int:
    return sum(lane["pending"] for lane in stat(host)["readers"]["cloud"].values())


# -- chapters


def plain() -> None:
    """What is on the machines before anything of ours. For prepare.yml."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for host in HOSTS:
        (FOLDER / f"{host}.plain").write_text("\n".join(files(host)))


def unsaid() -> None:
    """Nobody wipes, or keeps, without having said which."""
    told = play("remove", fails=True)
    assert "What is to become of the journal" in told or "gateway_remove_data" in told, told[-2000:]
    assert {on(host, "systemctl is-active holdfast.service") for host in HOSTS} == {"active"}


def kept() -> None:
    """The gateway goes, its data and their owner stay; an install finds them, and the ledger goes on."""
    for host in HOSTS:
        until(f"{host} has delivered records", lambda host=host: stat(host)["lanes"]["telemetry"]["appended"] > 20)  # type: ignore[misc]  # a default binds it
    owner = {host: on(host, "stat -c %U:%u /var/lib/holdfast; id holdfast") for host in HOSTS}
    before = {host: stat(host)["lanes"]["telemetry"] for host in HOSTS}
    play("remove", "-e", "gateway_remove_data=keep")
    for host in HOSTS:
        left = [line for line in more(host) if not any(each in line for each in OURS)]
        assert {line.split(" ")[0] for line in left} <= {"+", "-"}
        assert all(any(f" {each}" in line for each in ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")) for line in left), left
        assert on(host, "ss -Htlnp | grep -c holdfast || :") == "0"
    again = play("remove", "-e", "gateway_remove_data=keep")
    assert again.count("changed=0") == len(HOSTS), again[-1500:]
    play("install")
    for host in HOSTS:
        now = stat(host)["lanes"]["telemetry"]
        assert now["epoch"] == before[host]["epoch"], (before[host], now)
        assert now["appended"] > before[host]["appended"], (before[host], now)
        assert on(host, "stat -c %U:%u /var/lib/holdfast; id holdfast") == owner[host]
        until(f"all that {host} has is delivered", lambda host=host: pending(host) < 10)  # type: ignore[misc]  # as above
        subprocess.run([str(ROOT / "tools/machines.py"), "end", SITE, f"consumer-{host}"], check=True)
        log = ROOT / f"build/machines/sites/{SITE}/consumer-{host}.log"
        verdict: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])["verdict"]  # Any: JSON
        say(f"{host}: { ({each: verdict[each] for each in ('received', 'duplicate', 'missing', 'lost', 'marks', 'marks_wrong')}) }")
        assert (verdict["missing"], verdict["lost"], verdict["marks_wrong"]) == (0, {}, 0), verdict
        assert verdict["received"] > before[host]["appended"]


def saved() -> None:
    """Backups are on the controller, encrypted, for their owner alone; so are support bundles; nothing stays on the hosts."""
    for host in HOSTS:
        on(host, "holdfast token issue /etc/holdfast/site.json from-before --role viewer >/dev/null")
    told = play("backup") + play("collect_support_bundle")
    assert "of this scenario alone" not in told
    for host in HOSTS:
        found = backup(host)
        assert (found.stat().st_mode & 0o777, found.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert b"plant-7" not in found.read_bytes()
        packed = next((FOLDER / "support").glob(f"{host}-*.tar.gz"))
        assert packed.stat().st_mode & 0o777 == 0o600
        assert b"site" in subprocess.run(["tar", "-tzf", packed], check=True, stdout=subprocess.PIPE).stdout
        assert on(host, "ls /var/tmp | grep holdfast- || :") == ""


def backup(host: str) -> Path:
    return next((FOLDER / f"backups/{host}").glob("*.holdfast"))


def restored() -> None:
    """A host that was wiped is installed anew, and what its gateway knew is brought back; not with another's backup, nor passphrase."""
    play("remove", "-e", "gateway_remove_data=wipe")
    play("install")
    for host in HOSTS:
        assert "from-before" not in on(host, "holdfast token list /etc/holdfast/site.json")
    first, second = HOSTS
    told = play("restore", "--limit", first, "-e", f"gateway_restore_file={backup(second)}", fails=True)
    assert "nothing was restored" in told, told[-3000:]
    told = play(
        "restore", "--limit", first, "-e", f"gateway_restore_file={backup(first)} gateway_backup_passphrase='{ANOTHER}'", fails=True
    )
    assert "nothing was restored" in told, told[-3000:]
    assert ANOTHER not in told
    for host in HOSTS:
        assert on(host, "systemctl is-active holdfast.service") == "active"
        play("restore", "--limit", host, "-e", f"gateway_restore_file={backup(host)}")
        assert "from-before" in on(host, "holdfast token list /etc/holdfast/site.json")
        assert on(host, "find /var/lib/holdfast ! -user holdfast | head") == ""
        assert on(host, "stat -c '%U:%G %a' /etc/holdfast/site.json") == "root:holdfast 640"


def wiped() -> None:
    """A wipe leaves nothing: every file, user and setting is as on the plain machine. For verify.yml."""
    play("remove", "-e", "gateway_remove_data=wipe")
    for host in HOSTS:
        assert not more(host), "\n".join(more(host))
        assert on(host, "systemctl list-unit-files --no-legend 'holdfast*' || :") == ""
    again = play("remove", "-e", "gateway_remove_data=wipe")
    assert again.count("changed=0") == len(HOSTS), again[-1500:]


if __name__ == "__main__":
    tell((unsaid, kept, saved, restored), (plain, wiped), sys.argv[1:])
