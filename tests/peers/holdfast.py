"""The real gateway as a process of its own, for tests that look at it from outside: started, stopped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner

from gateway.cli import main
from tests.peers.leash import start

DEADLINE_S: Final = 20.0


def until(what: str, true: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition; past the deadline the test fails and says which."""
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.05)


class Holdfast:
    """``holdfast run`` on a site document of its own folder. Logs of all lives go to ``folder/log``."""

    def __init__(
        self,
        folder: Path,
        site: dict[str, Any],  # Any: JSON
        *,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """``prefix`` is put before the gateway's command and must become it (exec): a tool that harms it from outside."""
        self.prefix = prefix
        """May be changed between two lives."""
        self._environment = {**os.environ, **(environment or {})}
        self.folder = folder
        self.site_file = folder / "site.yaml"
        self.log_file = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.write(site)

    def write(self, site: dict[str, Any]) -> None:  # Any: JSON
        """Change the document; ``reload`` makes the gateway read it."""
        self.site_file.write_text(json.dumps(site))

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it and wait for nothing."""
        with self.log_file.open("ab") as log:
            command = [*self.prefix, sys.executable, "-m", "gateway", "run", str(self.site_file)]
            self._process = start(*command, stdout=log, stderr=log, env=self._environment)

    def start(self) -> None:
        """Start it and wait until it says that it runs."""
        before = self.events("running")
        self.launch()
        until(f"the gateway runs (see {self.log_file}:\n{self.end_of_log()})", lambda: self.events("running") > before or self._gone())
        assert not self._gone(), f"the gateway ended at start:\n{self.end_of_log()}"

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        self._end(signal.SIGKILL)

    def reload(self) -> None:
        before = self.events("reloaded", "reload_refused")
        os.kill(self.pid, signal.SIGHUP)
        until("the document is reloaded or refused", lambda: self.events("reloaded", "reload_refused") > before)

    def log(self) -> Iterator[dict[str, Any]]:  # Any: JSON
        """Every event that it logged, in order."""
        for line in self.log_file.read_text().splitlines() if self.log_file.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # a trace of a crash is no event; _end_of_log shows it
                yield json.loads(line)

    def events(self, *names: str) -> int:
        return sum(event.get("event") in names for event in self.log())

    def run_another(self) -> subprocess.CompletedProcess[str]:
        """Run a second gateway on the same document, which must end by itself."""
        command = [sys.executable, "-m", "gateway", "run", str(self.site_file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def ask(self, *arguments: str) -> list[dict[str, Any]]:  # Any: JSON
        """What ``holdfast journal ...`` prints."""
        said = self.command("journal", arguments[0], str(self.site_file), *arguments[1:])
        return [json.loads(line) for line in said.splitlines()]

    def command(self, *arguments: str) -> str:
        """What ``holdfast ...`` prints; it must end well. It runs in this process, for tests ask again and again; in a thread, for a
        command has an event loop of its own."""
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(CliRunner().invoke, main, arguments).result(60)
        assert done.exit_code == 0, (done.stderr, done.exception)
        return done.stdout

    def metrics(self, port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def _gone(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, "not started"
        self._process.send_signal(how)
        code = self._process.wait(DEADLINE_S)
        self._process = None
        return code

    def end_of_log(self) -> str:
        return "\n".join(self.log_file.read_text().splitlines()[-30:]) if self.log_file.exists() else "(no log)"

    def end(self) -> None:
        """Whatever it does, it ends now; twice is fine."""
        if self._process is not None and not self._gone():
            self.kill()

    def __enter__(self) -> Holdfast:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
