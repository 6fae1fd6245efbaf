"""The technician's login from outside, on a host that the role ``console`` made: it lands in the console, and all else is refused.

Run where the host is reached, with a key that may log in; each line says what was tried. With ``--inside`` (words that run a command
as root on the host) it also looks at what the console's process was given, and signs in as a user that it makes.

    python -m tests.tui.outside 10.77.0.11 --key KEY --inside tools/machines.py exec SITE MACHINE
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DEADLINE_S: Final = 40.0
PASSWORD: Final = "nine yellow boats at dawn"
QUIET: Final = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-F", "/dev/null")
NOWHERE: Final = "nothing here but the console"


class Outside:
    """A host, a login, and a key."""

    def __init__(self, host: str, user: str, key: Path, inside: Sequence[str]) -> None:
        self.host, self.user, self.key, self.inside = host, user, key, inside
        self.failed = 0

    @property
    def at(self) -> str:
        return f"{self.user}@{self.host}"

    def options(self, *more: str, key: Path | None = None) -> list[str]:
        return [*QUIET, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(key or self.key), *more]

    def run(self, *words: str) -> tuple[int, str]:
        """What a command said, and how it ended."""
        try:
            done = subprocess.run(words, capture_output=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired as late:
            return -1, f"it did not end: {late.output!r}"
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")

    def within(self, *words: str, given: str = "") -> str:
        """What a command on the host said, as root."""
        done = subprocess.run([*self.inside, *words], input=given, capture_output=True, timeout=DEADLINE_S, text=True, check=False)
        return done.stdout + done.stderr

    def holds(self, what: str, true: bool, seen: object = "") -> None:
        self.failed += not true
        sys.stdout.write(f"{'ok' if true else 'NO'}  {what}{'' if true else f': {seen!r}'}\n")
        sys.stdout.flush()

    def refused(self, what: str, *words: str, says: str = "") -> None:
        """``words`` end in failure, give nothing away, and say why where it is known."""
        code, said = self.run(*words)
        self.holds(what, code not in (0, -1) and "uid=" not in said and says in said, (code, said))


class Login:
    """A terminal on which ssh runs."""

    def __init__(self, words: Sequence[str]) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(words[0], list(words), {**os.environ, "TERM": "dumb"})
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def sees(self, expected: str) -> bool:
        """Whether ``expected`` comes."""
        ends = time.monotonic() + DEADLINE_S
        while expected not in self.seen and time.monotonic() < ends:
            if not select.select([self._terminal], [], [], 0.2)[0]:
                continue
            try:
                self.seen += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:
                break
        there = expected in self.seen
        self.seen = self.seen.partition(expected)[2] if there else self.seen
        return there

    def ended(self) -> bool:
        ends = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                if select.select([self._terminal], [], [], 0.2)[0]:
                    os.read(self._terminal, 65536)
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return True
        return False

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._terminal)


def commands_and_files(out: Outside, folder: Path) -> None:
    out.refused("a command", "ssh", *out.options(), out.at, "id", says=NOWHERE)
    out.refused("a shell on a terminal", "ssh", *out.options("-tt"), out.at, "/bin/bash", says=NOWHERE)
    out.refused("a login without a terminal", "ssh", *out.options("-T"), out.at, says="needs a terminal")
    out.refused("the subsystem sftp", "ssh", *out.options("-s"), out.at, "sftp")
    out.refused("sftp", "sftp", *out.options("-b", "/dev/null"), out.at)
    out.refused("sftp by its program", "sftp", *out.options("-b", "/dev/null", "-s", "/usr/lib/openssh/sftp-server"), out.at)
    (folder / "up").write_text("x")
    for form in ((), ("-O",)):
        out.refused(f"a file sent {form}", "scp", *form, *out.options(), str(folder / "up"), f"{out.at}:/tmp/up")
        out.refused(f"a file fetched {form}", "scp", *form, *out.options(), f"{out.at}:/etc/passwd", str(folder / "down"))
    out.holds("no file came", not (folder / "down").exists())


@contextmanager
def held(out: Outside, *options: str, key: Path | None = None) -> Iterator[Login]:
    """A login that has got as far as the console's question."""
    login = Login(["ssh", *out.options(*options, key=key), out.at])
    try:
        out.holds(f"it lands in the console {' '.join(options)}", login.sees("User: "), login.seen)
        yield login
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            login.kill()


def forwarding(out: Outside, folder: Path) -> None:
    """Each kind, while a login is held open, from the client's end and from the host's."""
    free = [_free_port() for _ in range(2)]
    with held(out, "-L", f"{free[0]}:127.0.0.1:22", "-D", str(free[1]), "-A", "-X", "-L", f"{folder}/bus:/run/dbus/system_bus_socket"):
        out.holds("-L leads nowhere", _answers(("127.0.0.1", free[0]), b"") == b"")
        by_socks = _answers(("127.0.0.1", free[1]), b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16")
        out.holds("-D leads nowhere", b"SSH" not in by_socks, by_socks)
        out.holds("a forwarded socket leads nowhere", _answers(f"{folder}/bus", b"\0AUTH EXTERNAL 30\r\n") == b"")
    out.refused("-W, and so -J", "ssh", *out.options("-W", "127.0.0.1:22"), out.at)
    out.refused(
        "-J", "ssh", *out.options("-o", f"ProxyCommand=ssh {' '.join(out.options())} -W 127.0.0.1:22 {out.at}"), "root@127.0.0.1", "id"
    )
    strict = ("-o", "ExitOnForwardFailure=yes", "-N")
    out.refused("-R", "ssh", *out.options(*strict, "-R", "0:127.0.0.1:22"), out.at)
    out.refused("-R of a socket", "ssh", *out.options(*strict, "-R", f"/tmp/back:{folder}/none"), out.at)
    out.refused("-w", "ssh", *out.options(*strict, "-w", "any:any"), out.at)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: tuple[str, int] | str, said: bytes) -> bytes:
    """What comes back through a forwarding; nothing where it is shut."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as one, contextlib.suppress(OSError):
        one.settimeout(5)
        one.connect(address)
        one.sendall(said)
        got = b""
        while piece := one.recv(4096):
            got += piece
        return got
    return b""


def others(out: Outside, folder: Path) -> None:
    stranger = folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    out.refused("a key that nobody knows", "ssh", *out.options("-tt", key=stranger), out.at, says="Permission denied (publickey)")
    asking = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive,none")
    out.refused("a password", "ssh", *out.options(*asking), out.at, says="Permission denied (publickey)")
    master = f"{folder}/master"
    with held(out, "-M", "-S", master):
        out.refused("a second session of a connection", "ssh", "-tt", "-S", master, out.at, "id")
        out.refused("a forwarding asked for later", "ssh", "-S", master, "-O", "forward", "-R", "0:127.0.0.1:22", out.at)


def certificates(out: Outside, authority: Path, folder: Path) -> None:
    for name, principal in (("good", out.user), ("wrong", "root")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", name, "-n", principal, "-V", "-1h:+1h", str(folder / f"{name}.pub")]
        subprocess.run(sign, check=True)
    with held(out, key=folder / "good"):
        pass
    out.refused("a certificate for another name", "ssh", *out.options("-tt", key=folder / "wrong"), out.at, says="Permission denied")


def the_console(out: Outside) -> None:
    with held(out) as login:
        for keys in ("\x1a", "\x1c"):
            login.type(keys)
        login.type("\n")
        out.holds("suspending and quitting do nothing", login.sees("Token: "), login.seen)
        login.type("\x04")
        out.holds("Ctrl-D ends the connection", login.ended())


def as_root(out: Outside, document: str) -> None:
    """What the console's process has, and that signing in and being cut off work against the gateway that runs there."""
    out.within("holdfast", "user", "add", document, "outside", "--role", "technician", given=f"{PASSWORD}\n")
    out.within("holdfast", "user", "password", document, "outside", given=f"{PASSWORD}\n")
    with held(out, "-A", "-o", "SetEnv=LD_PRELOAD=/tmp/x PYTHONPATH=/tmp/x HOLDFAST_TAKES_NONE=x LANG=x BASH_ENV=/tmp/x") as login:
        pid = out.within("pgrep", "-u", out.user, "-f", "holdfast-console").split()[-1]
        environment = out.within("cat", f"/proc/{pid}/environ").split("\0")
        names = {each.partition("=")[0] for each in environment if each}
        out.holds("its environment is clean", names == {"TERM", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE"}, names)
        out.holds("its language is its own", "LANG=C.UTF-8" in environment, environment)
        group = out.within("cat", f"/proc/{pid}/cgroup")
        out.holds("it is in the slice with the limits", f"user-{out.within('id', '-u', out.user).strip()}.slice" in group, group)
        limits = out.within("cat", f"/proc/{pid}/limits")
        out.holds("it can write no file", any(line.split()[:4] == ["Max", "file", "size", "0"] for line in limits.splitlines()), limits)
        login.type("outside\n")
        login.sees("Password: ")
        login.type(f"{PASSWORD}\n")
        out.holds("a user of the gateway signs in, and sees how it is", login.sees("every record is accounted for"), login.seen)
        login.type("!sh\n")
        out.holds("there is no word for a shell", login.sees("there is no word"), login.seen)
        login.kill()
        out.holds("a cut connection signs out", _until(lambda: '"sign_out"' in _newest(out, document)), _newest(out, document))
        out.holds("nothing of it is left", _until(lambda: not out.within("pgrep", "-u", out.user).strip()))
    su = out.within("su", "-", out.user, "-c", "id")
    out.holds("su leads there too", NOWHERE in su and "uid=" not in su, su)


def _newest(out: Outside, document: str) -> str:
    """What was done last on the gateway."""
    return out.within("holdfast", "audit", document, "-n", "1")


def _until(true: Callable[[], bool]) -> bool:
    ends = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Try the technician's login from outside")
    parser.add_argument("host")
    parser.add_argument("--user", default="technician")
    parser.add_argument("--key", type=Path, required=True, help="a key that may log in")
    parser.add_argument("--authority", type=Path, help="private key of the authority in console_authorities")
    parser.add_argument("--document", default="/etc/holdfast/site.json")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, default=[], help="words that run a command as root there; they come last")
    wish = parser.parse_args()
    out = Outside(wish.host, wish.user, wish.key.resolve(), wish.inside)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands_and_files(out, folder)
        forwarding(out, folder)
        others(out, folder)
        if wish.authority:
            certificates(out, wish.authority, folder)
        the_console(out)
        if wish.inside:
            as_root(out, wish.document)
    sys.stdout.write(f"{out.failed} of what must hold does not\n" if out.failed else "all of it holds\n")
    return 1 if out.failed else 0


if __name__ == "__main__":
    sys.exit(main())
