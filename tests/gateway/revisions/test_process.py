"""The gateway as a process and ``holdfast plan | apply | ...`` beside it, without an API; and its start with a file that is wrong."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli import main
from tests.gateway.revisions.conftest import document
from tests.peers.holdfast import Holdfast, until

JOURNAL = {"path": "./journal"}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def told(*arguments: str | Path, code: int = 0) -> Any:  # Any: JSON
    """What a command prints as JSON; it must end with ``code``."""
    done = run(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_a_shell_on_the_gateway_is_enough(tmp_path: Path) -> None:
    """Planned, applied on trial, confirmed, compared and rolled back; exit codes say what a script has to know."""
    other = tmp_path / "new.yaml"
    other.write_text(json.dumps(document("cloud", journal=JOURNAL, connections=[])))
    with Holdfast(tmp_path / "gateway", document(journal=JOURNAL)) as gateway:
        here = ("--gateway", gateway.site_file)
        assert told("plan", other, *here, "--exit-code", code=3)["uplinks"]["added"] == ["cloud"]
        assert "added     uplink cloud" in run("plan", other, *here).stdout
        assert told("plan", gateway.site_file, "--exit-code")["nothing"]
        trial = told("apply", other, *here, "--confirm-within", "600", "--reason", "the cloud at last")["revision"]
        assert (trial["number"], trial["standing"], trial["origin"], trial["reason"]) == (2, "trial", "console", "the cloud at last")
        assert trial["author"].startswith("local:")
        assert told("diff", gateway.site_file, "--exit-code", code=3)["changes"][0]["path"] == "uplinks[cloud]"
        busy = run("apply", gateway.site_file)
        assert (busy.exit_code, "waits to be confirmed" in busy.stderr) == (1, True)
        assert told("confirm", gateway.site_file)["standing"] == "confirmed"
        assert told("apply", other, *here)["changed"] is False
        assert told("rollback", gateway.site_file)["revision"]["number"] == 3
        assert [one["standing"] for one in told("history", gateway.site_file)] == ["confirmed"] * 3
        assert json.loads(run("history", gateway.site_file, "2", "--document").stdout)["uplinks"][0]["name"] == "cloud"
        assert "uplinks[cloud]" in run("history", gateway.site_file, "2").stdout
        other.write_text("holdfast: 1\ngatway: {}\n")
        wrong = run("apply", other, *here)
        assert (wrong.exit_code, "did you mean" in wrong.stderr, "line 2" in wrong.stderr) == (2, True, True)
    assert told("plan", gateway.site_file)["base"] == 0
    assert run("history", gateway.site_file).exit_code == 1


def test_a_gateway_whose_file_is_wrong_at_its_start_runs_what_was_confirmed(tmp_path: Path) -> None:
    """It says so, and takes the file when it is right again."""
    with Holdfast(tmp_path, document("first", journal=JOURNAL)) as gateway:
        gateway.stop()
        gateway.site_file.write_text(json.dumps({**document("second", journal=JOURNAL), "uplnks": []}))
        gateway.start()
        assert [event["name"] for event in gateway.log() if event["event"] == "uplink_started"] == ["first", "first"]
        assert told("diff", gateway.site_file, code=2)["state"] == "unreadable"
        gateway.write(document("second", journal=JOURNAL))
        gateway.reload()
        until("the mended file runs", lambda: [e["name"] for e in gateway.log() if e["event"] == "uplink_started"][-1] == "second")
        assert [one["origin"] for one in told("history", gateway.site_file)] == ["file", "file"]


def test_an_older_release_that_knows_neither_the_file_nor_what_was_confirmed_runs_the_newest_that_it_knows(tmp_path: Path) -> None:
    """After a rollback: the newer release had confirmed a document with a key of its own, and its file has it too."""
    with Holdfast(tmp_path, document("first", journal=JOURNAL)) as gateway:
        gateway.write(document("second", journal=JOURNAL))
        gateway.reload()
        gateway.stop()
        newer = json.dumps({**document("third", journal=JOURNAL), "key_of_a_newer_release": 1})
        gateway.site_file.write_text(newer)
        with closing(sqlite3.connect(tmp_path / "journal" / "state" / "state.db")) as db, db:
            db.execute("UPDATE revision SET document = ? WHERE number = 2", (zlib.compress(newer.encode()),))
        gateway.start()
        assert [event["name"] for event in gateway.log() if event["event"] == "uplink_started"][-1] == "first"
        assert next(event["revision"] for event in gateway.log() if event["event"] == "revision_not_usable") == 2
        gateway.stop()
        gateway.start()
        assert [event["name"] for event in gateway.log() if event["event"] == "uplink_started"][-1] == "first"


def test_a_file_that_is_wrong_where_nothing_was_ever_confirmed_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("holdfast: 1\n")
    assert run("run", file).exit_code == 2
    assert not (tmp_path / "data").exists()
