"""A real mosquitto on loopback, for tests: started on a free port, stopped, killed, frozen and started again there.

It is a peer written by somebody else, so nothing in it is ours but the configuration. ``Mosquitto`` is used as a context
manager; all it writes lies in the folder it is given. ``listener``, ``acl``, ``users`` and ``pki`` cover what tests ask for
most; anything else is configuration text in mosquitto's own words.

Waiting is for a condition (the port answers, the process is gone) with a deadline, never for a time.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.peers.certificates import Pki
from tests.peers.leash import start

DEADLINE_S: Final = 10.0


def installed() -> bool:
    return _binary() is not None


def _binary() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Mosquitto:
    """One broker. ``with Mosquitto(tmp_path) as broker: ... broker.port``."""

    folder: Path
    config: str = ""
    """Further lines in mosquitto's own words, such as ``max_inflight_messages 10``."""
    acl: str | None = None
    """Text of an ACL file; None lets everybody do everything."""
    users: dict[str, str] = field(default_factory=dict)
    """Names and passwords; empty lets anonymous clients in."""
    pki: Pki | None = None
    """TLS with this authority's server certificate; None is plain TCP."""
    client_certificates: bool = False
    """With ``pki``: clients must show a certificate of the same authority."""
    tls_version: str = "tlsv1.3"
    quiet: bool = False
    """Log errors alone: for broad streams."""
    host: str = "127.0.0.1"
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.thaw()
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start, on the same port as before if there was one, and return when it answers."""
        binary = _binary()
        if binary is None:
            raise RuntimeError("mosquitto is not installed: install the package mosquitto")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        settings = self._write_settings()
        with (self.folder / "mosquitto.log").open("ab") as output:
            words = (binary, *(() if self.quiet else ("-v",)), "-c", str(settings))
            self._process = start(*words, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._wait_until_it_answers()

    def stop(self) -> None:
        """SIGTERM: it says goodbye to its clients (MQTT 5: DISCONNECT with Server shutting down) and ends."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what it held in memory is gone."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the kernel still takes bytes for it, nobody answers (a half-open connection)."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._send(number)
        if self._process is not None:
            self._process.wait(DEADLINE_S)
            self._process = None

    def _write_settings(self) -> Path:
        told = "error" if self.quiet else "all"
        lines = [f"listener {self.port} {self.host}", f"log_type {told}", "log_dest stderr", "connection_messages true"]
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes the user mosquitto, who may not read a test's folder
        lines += self._tls_lines() + self._access_lines()
        settings = self.folder / "mosquitto.conf"
        settings.write_text("\n".join([*lines, self.config, ""]))
        return settings

    def _tls_lines(self) -> list[str]:
        if self.pki is None:
            return []
        return [
            f"cafile {self.pki.ca_file}",
            f"certfile {self.pki.server.cert_file}",
            f"keyfile {self.pki.server.key_file}",
            f"tls_version {self.tls_version}",
            f"require_certificate {str(self.client_certificates).lower()}",
        ]

    def _access_lines(self) -> list[str]:
        lines = [f"allow_anonymous {str(not self.users).lower()}"]
        if self.users:
            passwords = self.folder / "passwords"
            passwords.write_text("".join(_password_line(name, word) for name, word in self.users.items()))
            lines.append(f"password_file {passwords}")
        if self.acl is not None:
            rules = self.folder / "acl"
            rules.write_text(self.acl + "\n")
            lines.append(f"acl_file {rules}")
        return lines

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1.0).close()
            except OSError:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mosquitto does not answer on port {self.port}:\n{self.log()}") from None
                time.sleep(0.01)
            else:
                return


def _password_line(name: str, word: str) -> str:
    """mosquitto's ``$7$`` form: PBKDF2 with SHA-512, as mosquitto_passwd writes it."""
    salt, rounds = b"0123456789ab", 101
    digest = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, rounds, 64)
    return f"{name}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
