"""``holdfast backup`` of a gateway that runs, ``holdfast restore`` of one that is stopped, and what a consumer sees of it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from click.testing import CliRunner

from gateway.cli import main
from gateway.config.model import JournalOptions
from gateway.consume import ConsumeOptions, consume
from gateway.journal import Journal, Lane
from protocols.clock import SystemClock
from tests.builders import batch, floats
from tests.peers.fast import ROUND, FastModbus
from tests.peers.holdfast import Holdfast, until
from tests.peers.mosquitto import Mosquitto

PHRASE: Final = "correct horse battery"


def holdfast(*words: str | Path, code: int = 0, environment: dict[str, str] | None = None) -> str:
    """What the command prints: to standard output where it ends well, else to standard error."""
    try:
        done = CliRunner().invoke(main, [str(word) for word in words], env=environment)
    finally:
        structlog.reset_defaults()
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def site(field: FastModbus, broker: Mosquitto, name: str = "gw") -> dict[str, Any]:  # Any: JSON
    device = {"name": "meter", "unit_id": 1, "scan_s": 0.05, "tags": [{"name": "round", "at": f"holding:{ROUND}", "kind": "uint64"}]}
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": name},
        "journal": {"path": "./journal", "commit_window_ms": 10},
        "connections": [{"name": "line", "type": "modbus-tcp", "host": "127.0.0.1", "port": field.ports[0], "devices": [device]}],
        "uplinks": [{"name": "cloud", "type": "sparkplug", "host": "127.0.0.1", "port": broker.port, "keepalive_s": 5}],
        "outage_budget_s": 0,
    }


async def test_a_backup_comes_back_and_a_consumer_confuses_nothing(tmp_path: Path) -> None:
    """Encrypted, with its journal, made while the gateway runs. What came after it is gone, in a new epoch; a second gateway is refused."""
    (tmp_path / "phrase").write_text(PHRASE + "\n")
    phrase = ("--passphrase-file", tmp_path / "phrase")
    out, folder = tmp_path / "backup", tmp_path / "gateway"
    stop = asyncio.Event()
    with Mosquitto(tmp_path / "broker") as broker:
        async with FastModbus(ports=1) as field:
            options = ConsumeOptions(group="plant", gateway="gw", port=broker.port)
            consuming = asyncio.create_task(consume(options, None, stop=stop))
            gateway = Holdfast(folder, site(field, broker))
            file = gateway.site_file
            try:
                await asyncio.to_thread(gateway.start)
                await asyncio.to_thread(holdfast, "health", file, "--wait", "30")
                await asyncio.to_thread(holdfast, "token", "issue", file, "kept", "--role", "viewer")
                told = json.loads(await asyncio.to_thread(holdfast, "backup", file, out, "--journal", *phrase))
                assert (told["encrypted"], told["journal"], told["bytes"]) == (True, True, out.stat().st_size)
                assert out.stat().st_mode & 0o777 == 0o600
                assert b"holdfast: 1" not in out.read_bytes()
                assert b"SQLite" not in out.read_bytes()
                await asyncio.to_thread(holdfast, "token", "issue", file, "later", "--role", "viewer")
                await asyncio.to_thread(holdfast, "health", file, "--wait", "30")
                assert "stop it first" in await asyncio.to_thread(holdfast, "restore", file, out, *phrase, code=1)
                await asyncio.to_thread(gateway.stop)
                (folder / "journal" / "oscore-1234").write_text("2000")  # numbers that must never be used twice
                before = content(folder)
                await asyncio.to_thread(refused, file, out, tmp_path)
                assert content(folder) == before
                epoch = max(map(epoch_of, segments(folder)))
                done = json.loads(await asyncio.to_thread(holdfast, "restore", file, out, *phrase))
                assert (done["journal"], done["audit_kept"]) == (True, True)
                assert done["replaced"]
                assert (folder / "journal" / "oscore-1234").read_text() == "2000"
                assert all(map(os.path.exists, done["replaced"]))
                epochs = sorted({epoch_of(path) for path in segments(folder)})
                assert epochs[0] == epoch  # what was in the backup
                assert epochs[-1] > epoch  # and what comes
                await asyncio.to_thread(gateway.start)
                listed = await asyncio.to_thread(holdfast, "token", "list", file)
                assert [json.loads(line)["id"] for line in listed.splitlines()] == ["kept"]
                assert "restore" in await asyncio.to_thread(holdfast, "audit", file)
                await asyncio.to_thread(holdfast, "audit", file, "--verify")
                report = json.loads(await asyncio.to_thread(holdfast, "health", file, "--wait", "30", "--json"))
                assert report["ok"], report
            finally:
                gateway.end()
                stop.set()
                verdict = await consuming
    assert verdict.ok, verdict
    assert verdict.received > 15


def refused(file: Path, out: Path, folder: Path) -> None:
    """A wrong passphrase, a file that was changed or cut, another gateway's."""
    phrase = ("--passphrase-env", "PHRASE")
    environment = {"PHRASE": PHRASE}
    changed = bytearray(out.read_bytes())
    changed[len(changed) // 2] ^= 1
    (folder / "changed").write_bytes(changed)
    (folder / "cut").write_bytes(out.read_bytes()[:-100])
    assert "wrong" in holdfast("restore", file, out, *phrase, code=1, environment={**environment, "PHRASE": "another phrase"})
    assert "changed" in holdfast("restore", file, folder / "changed", *phrase, code=1, environment=environment)
    assert "cut off" in holdfast("restore", file, folder / "cut", *phrase, code=1, environment=environment)
    document = file.read_text()
    file.write_text(document.replace('"gw"', '"other"'))
    assert "--foreign" in holdfast("restore", file, out, *phrase, code=1, environment=environment)
    file.write_text(document)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


def segments(folder: Path) -> list[Path]:
    return list((folder / "journal" / "telemetry").glob("*.seg"))


def epoch_of(path: Path) -> int:
    return int(path.name.partition("-")[0])


def test_a_plain_backup_goes_to_a_bare_machine_with_its_templates(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "templates").mkdir(parents=True)
    (old / "templates" / "own.yaml").write_text("# ours\n")
    (old / "site.yaml").write_text('{"holdfast": 1, "gateway": {"group": "plant", "name": "gw"}, "journal": {"path": "./journal"}}')
    assert "ever run" in holdfast("backup", old / "site.yaml", tmp_path / "none", "--plain", code=1)
    with Holdfast(old, json.loads((old / "site.yaml").read_text())) as gateway:
        gateway.command("token", "issue", str(gateway.site_file), "ci", "--role", "viewer")
        assert "passphrase" in holdfast("backup", gateway.site_file, tmp_path / "out", code=2)
        holdfast("backup", gateway.site_file, tmp_path / "out", "--plain")
        assert "already" in holdfast("backup", gateway.site_file, tmp_path / "out", "--plain", code=1)
    new.mkdir()
    holdfast("restore", new / "site.yaml", tmp_path / "out")
    assert (new / "templates" / "own.yaml").read_text() == "# ours\n"
    assert {path.name for path in new.iterdir()} == {"site.yaml", "templates", "journal"}
    gateway = Holdfast(new, json.loads((new / "site.yaml").read_text()))
    with gateway:
        until("the token is there", lambda: "ci" in gateway.command("token", "list", str(gateway.site_file)))
    before = content(new)
    (tmp_path / "changed").write_bytes((tmp_path / "out").read_bytes().replace(b"# ours", b"# evil"))
    assert "own.yaml is not as it was" in holdfast("restore", new / "site.yaml", tmp_path / "changed", code=1)
    assert content(new) == before
    newer = (tmp_path / "out").read_bytes().replace(b'"release":"0.', b'"release":"9.', 1)
    (tmp_path / "newer").write_bytes(newer)
    assert "install that release" in holdfast("restore", new / "site.yaml", tmp_path / "newer", code=1)


@pytest.mark.parametrize("renew", [False, True])
async def test_a_copy_of_a_journal_begins_a_new_epoch(tmp_path: Path, renew: bool) -> None:
    """One that was closed cleanly goes on in its epoch, unless it is a copy."""
    options, clock = JournalOptions(path="journal", commit_window_ms=1), SystemClock()
    journal = await Journal.open(options, clock=clock, base=tmp_path)
    for value in range(10):
        first, _ = await journal.append(batch(floats(1), [float(value)]))
    await journal.close()
    journal = await Journal.open(options, clock=clock, base=tmp_path, renew=renew)
    try:
        epoch, seq = await journal.append(batch(floats(1), [1.0]))
        assert (epoch > first, seq) == (renew, 11)
        assert len(await journal.read(Lane.TELEMETRY, 1)) == (10 if renew else 11)
        assert not any(lane.dropped for lane in journal.ledger().lanes.values())
    finally:
        await journal.close()
