#!/usr/bin/env python3
"""Real Debian machines to deploy to: systemd as pid 1, a network of their own, up in a second. As root, without a hypervisor.

A *site* is a network namespace with a bridge: the controller's end, ``10.77.0.1`` and ``fd77::1``. Its machines are systemd-nspawn
containers, each in a network namespace of its own on that bridge, on an overlay above a minimal Debian that is made once. Nothing
routes out of a site, so what works here works with no internet; sites do not see each other and may use the same addresses.

``--mirror`` opens the one hole that a site may have: an HTTP proxy on port 3142 of the controller's end that fetches for apt, and
keeps what it fetched. Machines never get CAP_SYS_TIME: the clock is everybody's.

    tools/machines.py up SITE gw-1:bookworm:10.77.0.11 gw-2:trixie:10.77.0.12 [--mirror]
    tools/machines.py run SITE ansible-playbook ...         in the controller's namespace
    tools/machines.py background SITE plant COMMAND ...     there too, until ``end SITE plant`` or ``down``
    tools/machines.py exec SITE gw-1 systemctl status       inside a machine, past its network
    tools/machines.py kill SITE gw-1; ... start SITE gw-1   the plug pulled, and put back
    tools/machines.py down SITE
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import hashlib
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

HOME: Final = Path(__file__).resolve().parent.parent / "build" / "machines"
ROOTS: Final = HOME / "roots"
FETCHED: Final = HOME / "fetched"
SUITES: Final = ("bookworm", "trixie")
PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "python3", "openssh-server", "ca-certificates", "iproute2")
"""What a plain Debian host has before Holdfast comes: as little as is ever met."""
NEEDS: Final = ("mmdebstrap", "systemd-container", "iproute2", "openssh-client", "util-linux")
CONTROLLER: Final = ipaddress.ip_interface("10.77.0.1/24")
CONTROLLER6: Final = ipaddress.ip_interface("fd77::1/64")
PROXY: Final = "proxy"
PROXY_PORT: Final = 3142
CURL: Final = ("curl", *["--silent", "--show-error", "--location", "--retry", "3", "--max-time", "300", "--write-out", "%{http_code}"])
CGROUPS: Final = ("memory", "pids", "cpu")
UNIFIED: Final = Path("/sys/fs/cgroup/unified")
REBOOT: Final = 133
"""With which systemd-nspawn ends where its machine asked for a reboot."""
WITHIN: Final = "HOLDFAST_SITE"
"""Set in the environment of what runs at a site's controller's end."""
PATIENCE_S: Final = 90.0
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")
CLONE_NEWNET: Final = 0x40000000
ENVIRONMENT: Final = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb")


class Trouble(Exception):
    """What stands in the way, and what to do."""


@dataclass(frozen=True)
class Site:
    name: str

    @property
    def folder(self) -> Path:
        return HOME / "sites" / self.name

    @property
    def namespace(self) -> str:
        return f"hf-{self.name}"

    @property
    def outside(self) -> str:
        """Name of the network namespace that the site was made from: the proxy's way to the mirror."""
        return f"{self.namespace}-out"

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def machines(self) -> list[Machine]:
        return [Machine(self, path.parent.name) for path in sorted(self.folder.glob("*/suite"))]


@dataclass(frozen=True)
class Machine:
    site: Site
    name: str

    @property
    def folder(self) -> Path:
        return self.site.folder / self.name

    @property
    def namespace(self) -> str:
        return f"{self.site.namespace}-{self.name}"

    @property
    def suite(self) -> str:
        return (self.folder / "suite").read_text()

    @property
    def supervisor(self) -> int | None:
        return _alive(self.folder / "supervisor.pid")

    @property
    def leader(self) -> int | None:
        """Pid of the machine's pid 1, as this side sees it."""
        nspawn = _alive(self.folder / "nspawn.pid")
        if nspawn is None:
            return None
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        return next((int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"), None)

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs ``words`` inside."""
        leader = self.leader
        if leader is None:
            raise Trouble(f"machine {self.name} is off: {self.folder / 'console.log'} says why; start it")
        return ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i", *ENVIRONMENT, *words]


@dataclass(frozen=True)
class Wanted:
    """``NAME:SUITE:ADDRESS``."""

    name: str
    suite: str
    address: ipaddress.IPv4Interface

    @classmethod
    def read(cls, text: str) -> Wanted:
        name, suite, address = (*text.split(":", 2), "", "")[:3]
        try:
            interface = ipaddress.IPv4Interface(f"{address}/{CONTROLLER.network.prefixlen}")
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}; write NAME:SUITE:ADDRESS") from error
        if not NAME.fullmatch(name) or suite not in SUITES or interface.network != CONTROLLER.network:
            raise argparse.ArgumentTypeError(
                f"{text}: write NAME:SUITE:ADDRESS, a name of at most 20 small letters, one of {', '.join(SUITES)}, in {CONTROLLER.network}"
            )
        return cls(name, suite, interface)

    @property
    def address6(self) -> str:
        return f"fd77::{self.address.ip.packed[-1]:x}/64"


def _run(*words: str | Path, quiet: bool = False) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL if quiet else None)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _ip(*words: str) -> None:
    _run("ip", *words)


def _alive(pid_file: Path) -> int | None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid


def _until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            raise Trouble(f"{what} within {within_s:.0f} s: it did not happen")
        time.sleep(0.05)


# -- the Debian below


def root(suite: str) -> Path:
    """The folder of a minimal Debian, made at the first call (half a minute, and 300 MB)."""
    made = hashlib.sha256(repr((suite, PACKAGES)).encode()).hexdigest()[:12]
    folder = ROOTS / f"{suite}-{made}"
    if not folder.exists():
        if os.environ.get(WITHIN):
            raise Trouble(f"the Debian below is fetched from outside of a site: tools/machines.py roots {suite}")
        ROOTS.mkdir(parents=True, exist_ok=True)
        partial = ROOTS / f".{suite}-{os.getpid()}"
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, partial)
        for own in (partial / "etc/hostname", partial / "etc/machine-id", *(partial / "etc/ssh").glob("ssh_host_*")):
            own.unlink(missing_ok=True)  # each machine has its own
        partial.rename(folder)
    return folder


# -- up


def up(site: Site, wanted: Sequence[Wanted], *, mirror: bool) -> None:
    """Have every machine run and answer by SSH; what runs already is left alone."""
    if os.geteuid() != 0:
        raise Trouble("machines need root: namespaces, overlays and systemd-nspawn")
    missing = [each for each in ("mmdebstrap", "systemd-nspawn", "ip", "ssh-keygen", "nsenter") if shutil.which(each) is None]
    if missing:
        raise Trouble(f"missing: {', '.join(missing)}. On Debian: apt-get install {' '.join(NEEDS)}")
    _network(site)
    if not site.key.exists():
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "controller", "-f", site.key)
    if mirror:
        background(site, PROXY, [sys.executable, __file__, "_proxy", site.name])
    for each in wanted:
        if Machine(site, each.name).supervisor is None:
            _lay_down(site, each, mirror=mirror)
            start(Machine(site, each.name))
    for each in wanted:
        wait(Machine(site, each.name))


def _network(site: Site) -> None:
    site.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if Path("/run/netns", site.namespace).exists():
        return
    _ip("netns", "add", site.namespace)
    _ip("netns", "attach", site.outside, str(os.getpid()))  # who makes a site is outside of it; who calls later may be inside
    _ip("-n", site.namespace, "link", "set", "lo", "up")
    _ip("-n", site.namespace, "link", "add", "br0", "type", "bridge")
    for address in (CONTROLLER, CONTROLLER6):
        _ip("-n", site.namespace, "addr", "add", str(address), "dev", "br0", *(("nodad",) if address.version == 6 else ()))
    _ip("-n", site.namespace, "link", "set", "br0", "up")


def _lay_down(site: Site, wanted: Wanted, *, mirror: bool) -> None:
    """A machine's own files and its end of the network."""
    machine = Machine(site, wanted.name)
    for each in ("upper/etc", "upper/root/.ssh", "work", "root"):
        (machine.folder / each).mkdir(parents=True, exist_ok=True)
    (machine.folder / "suite").write_text(wanted.suite)
    etc = machine.folder / "upper/etc"
    if not (etc / "hostname").exists():
        (etc / "hostname").write_text(f"{wanted.name}\n")
        (etc / "resolv.conf").write_text("")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {wanted.name}\n")
        (etc / "ssh").mkdir(exist_ok=True)
        (etc / "systemd/system").mkdir(parents=True, exist_ok=True)
        (etc / "systemd/system/systemd-networkd-wait-online.service").symlink_to("/dev/null")  # the address comes from outside: 2 minutes
        _run("ssh-keygen", "-q", "-A", "-f", machine.folder / "upper")
    ssh = machine.folder / "upper/root/.ssh"
    ssh.parent.chmod(0o700)
    ssh.chmod(0o700)
    shutil.copy(f"{site.key}.pub", ssh / "authorized_keys")
    if mirror:
        (etc / "apt/apt.conf.d").mkdir(parents=True, exist_ok=True)
        (etc / "apt/apt.conf.d/00proxy").write_text(f'Acquire::http::Proxy "http://{CONTROLLER.ip}:{PROXY_PORT}";\n')
    if not Path("/run/netns", machine.namespace).exists():
        _plug_in(machine, wanted)


def _plug_in(machine: Machine, wanted: Wanted) -> None:
    within = ("-n", machine.namespace)
    end = f"v-{wanted.name[:12]}"
    _ip("netns", "add", machine.namespace)
    _ip("-n", machine.site.namespace, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", machine.namespace)
    _ip("-n", machine.site.namespace, "link", "set", end, "master", "br0", "up")
    _ip(*within, "link", "set", "lo", "up")
    _ip(*within, "addr", "add", str(wanted.address), "dev", "eth0")
    _ip(*within, "addr", "add", wanted.address6, "dev", "eth0", "nodad")
    _ip(*within, "link", "set", "eth0", "up")


def start(machine: Machine) -> None:
    """Switch it on."""
    root(machine.suite)
    with (machine.folder / "console.log").open("ab") as log:
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, "_machine", machine.site.name, machine.name]
        started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (machine.folder / "supervisor.pid").write_text(str(started.pid))


def wait(machine: Machine) -> None:
    """Until its systemd says that everything is started, and its SSH listens."""

    def says() -> bool:
        if machine.supervisor is None:
            raise Trouble(f"machine {machine.name} did not start: see {machine.folder / 'console.log'}")
        if machine.leader is None:
            return False
        state = subprocess.run(machine.command(["systemctl", "is-system-running"]), capture_output=True, text=True, check=False).stdout
        listens = subprocess.run(machine.command(["ss", "-Hltn", "sport = :22"]), capture_output=True, text=True, check=False).stdout
        return state.strip() in ("running", "degraded") and bool(listens.strip())

    _until(says, f"machine {machine.name} is up")


# -- inside the supervisor: one process a machine, in a mount namespace of its own


def supervise(machine: Machine) -> int:
    """Run the machine, again and again where it asks for a reboot."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # its machine is told by ``down``; this only waits
    Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run/systemd/nspawn")
    layers = f"lowerdir={root(machine.suite)},upperdir={machine.folder / 'upper'},workdir={machine.folder / 'work'}"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, machine.folder / "root")
    _own_cgroups(machine)
    while True:
        with subprocess.Popen(_nspawn(machine), stdin=subprocess.DEVNULL) as process:
            (machine.folder / "nspawn.pid").write_text(str(process.pid))
        _say(f"ended with {process.returncode}")
        if process.returncode != REBOOT:
            return process.returncode


def _nspawn(machine: Machine) -> list[str]:
    writable = "".join(f"mount -o remount,bind,rw /sys/fs/cgroup/{each}; " for each in CGROUPS if Path("/sys/fs/cgroup", each).is_dir())
    writable += "mount --bind /proc/sys/net /proc/sys/net; mount -o remount,bind,rw /proc/sys/net; "  # the network is its own
    return [
        *("systemd-nspawn", "--quiet", "--directory", str(machine.folder / "root"), f"--machine={machine.name}"),
        *("--register=no", "--keep-unit", "--console=read-only", "--kill-signal=SIGRTMIN+3", "--resolv-conf=off", "--timezone=off"),
        f"--network-namespace-path=/run/netns/{machine.namespace}",
        *("--capability=CAP_BPF,CAP_NET_ADMIN", "--system-call-filter=bpf"),  # or IPAddressDeny= would silently not hold
        *("/bin/sh", "-c", f"{writable}exec /lib/systemd/systemd"),
    ]


def _own_cgroups(machine: Machine) -> None:
    """Move into control groups of its own.

    Only so do MemoryMax and TasksMax hold inside, where the host's are of version 1; and in those of version 2, which machines would
    share, the packet filters of one machine's service would be those of another's.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controller, path = line.split(":", 2)
        if controller in CGROUPS or (not controller and UNIFIED.is_dir()):
            own = Path(f"{Path('/sys/fs/cgroup', controller) if controller else UNIFIED}{path}", machine.namespace)
            own.mkdir(exist_ok=True)
            (own / "cgroup.procs").write_text("0")
            with (machine.folder / "cgroups").open("a") as list_of_them:
                list_of_them.write(f"{own}\n")


# -- down


def kill(machine: Machine) -> None:
    """Every process of it dies at once."""
    if (leader := machine.leader) is not None:
        os.kill(leader, signal.SIGKILL)
    _until(lambda: machine.supervisor is None, f"machine {machine.name} is off")


def _end(pid: int | None, what: str) -> None:
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(Trouble):
        _until(lambda: not Path(f"/proc/{pid}").exists(), what, within_s=15)
        return
    os.kill(pid, signal.SIGKILL)


def remove(machine: Machine) -> None:
    """Switch it off and forget it."""
    _end(_alive(machine.folder / "nspawn.pid"), f"machine {machine.name} is off")
    with contextlib.suppress(Trouble):
        _until(lambda: machine.supervisor is None, "its supervisor has ended", within_s=10)
    if Path("/run/netns", machine.namespace).exists():
        _ip("netns", "del", machine.namespace)
    for group in sorted(set(_lines(machine.folder / "cgroups"))):
        for folder in sorted(Path(group).glob("**/"), reverse=True):
            with contextlib.suppress(OSError):  # what still empties itself goes with the next machine of that name
                folder.rmdir()
    shutil.rmtree(machine.folder)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def down(site: Site) -> None:
    """All machines of a site, what runs at its controller's end, and its network, unless who calls is in it: then it is made anew there."""
    for machine in site.machines:
        remove(machine)
    for path in site.folder.glob("*.pid"):
        end(site, path.stem)
    for namespace in () if os.environ.get(WITHIN) == site.name else (site.namespace, site.outside):
        if Path("/run/netns", namespace).exists():
            _ip("netns", "del", namespace)
    shutil.rmtree(site.folder, ignore_errors=True)


# -- what runs at the controller's end


def background(site: Site, name: str, command: Sequence[str]) -> None:
    """Start ``command`` in the site's network, unless one of that name runs; its output goes to ``NAME.log`` of the site's folder."""
    if _alive(site.folder / f"{name}.pid") is not None:
        return
    _network(site)
    words = ["nsenter", f"--net=/run/netns/{site.namespace}", *command]
    with (site.folder / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (site.folder / f"{name}.pid").write_text(str(started.pid))


def end(site: Site, name: str) -> None:
    """Tell it to end, and wait until it has."""
    _end(_alive(site.folder / f"{name}.pid"), f"{name} has ended")
    (site.folder / f"{name}.pid").unlink(missing_ok=True)


# -- the mirror: an HTTP proxy with one foot in the site


def _enter(namespace: Path) -> None:
    """This thread's new sockets, and the processes that it starts, belong to the namespace; the file system stays as it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")


async def _proxy(site: Site) -> None:
    listener = socket.create_server((str(CONTROLLER.ip), PROXY_PORT), backlog=64)
    _enter(Path("/run/netns", site.outside))
    async with await asyncio.start_server(_serve, sock=listener) as server:
        await server.serve_forever()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One GET after the other; each answer is what curl got, kept where its address never changes its meaning."""
    try:
        while line := await reader.readline():
            headers = await reader.readuntil(b"\r\n\r\n") if line != b"\r\n" else b""
            method, url, *_ = line.decode("latin-1").split()
            if method != "GET" or urlsplit(url).scheme != "http":
                writer.write(b"HTTP/1.1 501 Only GET of http\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            del headers
            path, status = await _fetched(url)
            size = path.stat().st_size if path else 0
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n".encode())
            if path:
                with path.open("rb") as file:
                    await asyncio.get_running_loop().sendfile(writer.transport, file)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        _say("a client went away")
    finally:
        writer.close()


async def _fetched(url: str) -> tuple[Path | None, str]:
    """The file behind ``url``, and the status to answer with."""
    kept = FETCHED / hashlib.sha256(url.encode()).hexdigest()
    FETCHED.mkdir(parents=True, exist_ok=True)
    lasting = url.endswith(".deb") or "/by-hash/" in url
    if lasting and kept.exists():
        return kept, "200 OK"
    partial = kept.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
    words = (*CURL, "-o", str(partial), url)
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    code = (await process.communicate())[0].decode()
    if code != "200" or process.returncode:
        partial.unlink(missing_ok=True)
        return None, "404 Not Found" if code == "404" else "502 Bad Gateway"
    partial.rename(kept)
    return kept, "200 OK"


# -- the command line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Debian machines to deploy to")
    words = parser.add_subparsers(dest="word", required=True)
    for word, what in (
        ("up", "have machines run"),
        ("run", "run a command at the controller's end"),
        ("background", "have a command run at the controller's end until the site is removed"),
        ("end", "end what runs there"),
        ("exec", "run a command inside a machine"),
        ("kill", "pull the plug"),
        ("start", "switch on again"),
        ("wait", "until it is up"),
        ("down", "remove a site, or one machine of it"),
        ("list", "what there is"),
        ("roots", "make the Debian below, now"),
        ("_machine", ""),
        ("_proxy", ""),
    ):
        each = words.add_parser(word, help=what)
        if word not in ("list", "roots"):
            each.add_argument("site")
        if word == "roots":
            each.add_argument("suites", nargs="*", metavar="SUITE")
        if word == "up":
            each.add_argument("machines", nargs="+", type=Wanted.read, metavar="NAME:SUITE:ADDRESS")
            each.add_argument("--mirror", action="store_true", help="let apt fetch through the controller's end")
        if word in ("exec", "kill", "start", "wait", "_machine"):
            each.add_argument("machine")
        if word == "down":
            each.add_argument("machine", nargs="?")
        if word in ("background", "end"):
            each.add_argument("name")
        if word in ("run", "exec", "background"):
            each.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def main() -> int:
    asked = _arguments()
    if asked.word == "list":
        for each in sorted((HOME / "sites").glob("*")):
            for machine in Site(each.name).machines:
                _say(f"{each.name} {machine.name} {machine.suite} {'on' if machine.leader else 'off'}")
        return 0
    if asked.word == "roots":
        for suite in asked.suites or SUITES:
            _say(str(root(suite)))
        return 0
    if not NAME.fullmatch(asked.site):
        raise Trouble(f"{asked.site} is no name of a site: at most 20 small letters, digits and -")
    return _about(Site(asked.site), asked)


def _about(site: Site, asked: argparse.Namespace) -> int:
    machine = Machine(site, asked.machine) if getattr(asked, "machine", None) else None
    if machine is not None and not (machine.folder / "suite").exists():
        raise Trouble(f"site {site.name} has no machine {machine.name}")
    match asked.word:
        case "up":
            up(site, asked.machines, mirror=asked.mirror)
        case "run":
            _network(site)
            _enter(Path("/run/netns", site.namespace))
            os.environ[WITHIN] = site.name
            # Sites may use the same addresses, so connections that ssh keeps open for later must not be found from another site.
            os.environ["ANSIBLE_SSH_CONTROL_PATH_DIR"] = f"/run/{site.namespace}"
            os.execvp(asked.command[0], asked.command)
        case "background":
            background(site, asked.name, asked.command)
        case "end":
            end(site, asked.name)
        case "down":
            remove(machine) if machine else down(site)
        case "_proxy":
            asyncio.run(_proxy(site))
        case _:
            assert machine is not None
            return _with(machine, asked)
    return 0


def _with(machine: Machine, asked: argparse.Namespace) -> int:
    match asked.word:
        case "exec":
            return subprocess.run(machine.command(asked.command), check=False).returncode
        case "kill":
            kill(machine)
        case "start":
            start(machine)
            wait(machine)
        case "wait":
            wait(machine)
        case "_machine":
            return supervise(machine)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Trouble, subprocess.CalledProcessError) as trouble:
        sys.exit(f"machines: {trouble}")
