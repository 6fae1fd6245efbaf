"""The container: built, looked at, and run as ``compose.yaml`` says, with a real broker and a field that numbers its scans.

``make image`` runs this. The base is a Debian made from Debian's own archive, where none is named; the broker is Debian's mosquitto in the
place of the image that ``compose.yaml`` names. What is believed is the consumer: it gets every scan that the field answered.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.images.podman import Composed, Podman, composed
from tests.peers.fast import ROUND, FastModbus

ROOT: Final = Path(__file__).parents[2]
HERE: Final = ROOT / "images" / "container"
BUILD: Final = ROOT / "build" / "image"
CONTEXT: Final = BUILD / "context"
BASE: Final = os.environ.get("BASE") or "localhost/debian-trixie"
BROKER: Final = "localhost/mosquitto-trixie"
IMAGE: Final = "localhost/holdfast"
DEVICE: Final = "main-meter"
DEADLINE_S: Final = 60.0
CLONE_NEWNET: Final = 0x40000000
SAID: Final = "/opt/holdfast/bin/holdfast"
"""The image's program."""


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """Its images stay for the next time; no mount does, so that ``make clean`` can remove them."""
    yield Podman(BUILD / "podman")
    overlay = str(BUILD / "podman" / "root" / "overlay")
    for mount in reversed([line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]):
        if mount.startswith(overlay):
            _words("umount", mount)


@pytest.fixture(scope="module")
def image(podman: Podman) -> str:
    """The image, from the project as it is."""
    _words(sys.executable, str(HERE / "build.py"), str(CONTEXT), "--base", BASE)
    _base(podman, BASE, "debian-trixie.tar", "python3")
    return _built(podman, f"{IMAGE}:{version()}")


@pytest.fixture(scope="module")
def broker(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's mosquitto, laid out as the image that compose.yaml names: its user is 1883 and owns its data."""
    _base(podman, "localhost/debian-mosquitto", "broker-trixie.tar", "mosquitto")
    folder = tmp_path_factory.mktemp("broker")
    own = "RUN mkdir -p /mosquitto/data /mosquitto/config && chown -R 1883:1883 /mosquitto"
    (folder / "Containerfile").write_text(f"FROM localhost/debian-mosquitto\n{own}\n")
    podman("build", "--quiet", "--network=none", "--pull=never", "--tag", BROKER, str(folder))
    return BROKER


@pytest.fixture(scope="module")
def alone(image: str, broker: str) -> None:
    """What was fetched is there: from here on this process is in an empty network namespace, so that no bridge or rule is the machine's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace of its own: run make image as root")
    links = [link["ifname"] for link in json.loads(_words("ip", "-json", "link", "show"))]
    assert "eth0" not in links
    assert "lo" in links
    _words("ip", "link", "set", "lo", "up")


def stamped(name: str) -> str:
    """What build.py wrote into the Containerfile: others may commit meanwhile."""
    found = re.search(rf"^ARG {name}=(.*)$", (CONTEXT / "Containerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def moment() -> int:
    """What everything in the image bears as its time."""
    return int(datetime.strptime(stamped("CREATED"), "%Y-%m-%dT%H:%M:%S%z").timestamp())


def version() -> str:
    return _words(sys.executable, "-c", "from importlib.metadata import version; print(version('holdfast'))")


def _words(*words: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def _base(podman: Podman, name: str, file: str, packages: str) -> None:
    """Have image ``name``: as podman has it, or pulled, or from Debian's archive, by its signature."""
    if podman.run("image", "exists", name).returncode == 0:
        return
    if not name.startswith("localhost/"):
        podman("pull", name)
        return
    root = BUILD / file
    if not root.exists():
        _words("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "trixie", str(root))
    podman("import", "--quiet", str(root), name)


def _built(podman: Podman, tag: str, *more: str) -> str:
    network = "none" if BASE.startswith("localhost/") else "host"
    words = ("build", f"--network={network}", "--pull=never", "--format=docker", f"--timestamp={moment()}", *more, "--tag", tag)
    podman(*words, str(CONTEXT))
    return tag


# ---- what is in it


def test_the_image_says_what_it_is(podman: Podman, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not root, its program is its first process, it has a health check, a volume for its data, and says its version."""
    told = podman.inspect("image", image)
    settings = told["Config"]
    assert settings["User"] == "10001:10001"
    assert settings["Entrypoint"] == [SAID]
    assert settings["Cmd"] == ["run", "/etc/holdfast/site.yaml"]
    assert list(settings["Volumes"]) == ["/var/lib/holdfast"]
    assert told["Healthcheck"]["Test"][:3] == ["CMD", SAID, "health"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in settings["Labels"].items()}
    assert labels["version"] == version()
    assert labels["revision"] == stamped("REVISION")
    assert labels["base.name"] == BASE
    assert podman("run", "--rm", "--network=none", image, "--version").endswith(version())
    with capsys.disabled():
        sys.stdout.write(f"\n{image}: {told['Size'] / 1e6:.0f} MB unpacked\n")


def test_nothing_is_in_it_that_the_gateway_does_not_need(podman: Podman, image: str) -> None:
    """No setuid, no shell, no pip, no package tool; what it is made of is told to scanners, with its licences."""
    root = Path(podman("image", "mount", image))
    try:
        files = [path for path in root.rglob("*") if not path.is_symlink() and path.is_file()]
        assert len(files) > 1000
        assert not [path for path in files if path.stat().st_mode & 0o6000]
        assert not [path for path in files if path.stat().st_mode & 0o002]
        programs = {path.name for place in ("usr/bin", "opt/holdfast/bin") for path in (root / place).iterdir()}
        assert programs == {"python3.13", "python3", "python", "holdfast", "holdfast-console"}
        assert not [
            path for path in root.rglob("*") if path.name in ("pip", "sh", "bash", "dash", "busybox", "apt", "dpkg.so", "ensurepip")
        ]
        packages = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
        assert {"libc6", "libssl3t64", "python3.13"} <= packages
        assert not [name for name in packages if not (root / "usr/share/doc" / name).exists()]
    finally:
        podman("image", "unmount", image)


def test_every_module_can_be_loaded(podman: Podman, image: str) -> None:
    """What was left out of the image is needed by no part of the gateway but the extras demo and arrow."""
    script = """
import importlib, pkgutil, sys
wrong = []
for top in ("gateway", "holdfast", "protocols", "tui"):
    for module in pkgutil.walk_packages(importlib.import_module(top).__path__, top + "."):
        if not module.name.startswith(("gateway.demo", "gateway.history.arrow")) and not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                wrong.append(f"{module.name}: {error}")
print(len(sys.modules)); sys.exit("\\n".join(wrong) or 0)
"""
    assert int(podman("run", "--rm", "--network=none", "--entrypoint=/opt/holdfast/bin/python", image, "-c", script)) > 500
    assert "openapi" in podman("run", "--rm", "--network=none", image, "openapi")


# ---- run as compose.yaml says


@dataclass
class Plant:
    """What compose.yaml describes, with a field behind the gateway and a consumer behind the broker."""

    stack: Composed
    field: FastModbus

    @property
    def podman(self) -> Podman:
        return self.stack.podman

    @property
    def gateway(self) -> str:
        return self.stack.container("gateway")

    @property
    def consumer(self) -> str:
        return self.stack.container("consumer")

    def consume(self) -> None:
        """A consumer, as the how-to page has it: the same image, on the broker's network."""
        password = self.stack.folder / "secrets" / "consumer-password"
        words = ["run", "--detach", "--pull=never", "--name", self.consumer, "--network", f"{self.stack.name}_broker", "--read-only"]
        words += ["--volume", f"{password}:/run/secrets/consumer-password:ro", self.stack.images["gateway"]]
        words += ["consume", "plant-7", "boiler-house", "--host", "broker", "--username", "consumer"]
        words += ["--password-file", "/run/secrets/consumer-password", "--from-beginning", "--acknowledge"]
        self.podman(*words)

    def consumed(self) -> list[dict[str, Any]]:  # Any: JSON
        """Everything that the consumer has printed."""
        lines = self.podman.run("logs", self.consumer).stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def rounds(self) -> set[int]:
        """The numbers of the scans that came."""
        return {
            int(value["value"])
            for line in self.consumed()
            for value in _values(line)
            if value["tag"] == "round" and value["value"] is not None
        }

    def healthy(self) -> bool:
        """What the image's own health check says."""
        return self.podman.run("healthcheck", "run", self.gateway).returncode == 0

    def say(self, *words: str) -> str:
        """What ``holdfast ...`` prints in the gateway's container."""
        return self.podman("exec", self.gateway, SAID, *words)

    def pending(self) -> int:
        stat = json.loads(self.say("journal", "stat", "/etc/holdfast/site.yaml"))
        return sum(int(lane["pending"]) for lane in stat["readers"]["broker"].values())

    def write(self, change: Callable[[dict[str, Any]], None]) -> None:  # Any: YAML
        file = self.stack.folder / "holdfast" / "site.yaml"
        document = yaml.safe_load(file.read_text())
        change(document)
        file.write_text(yaml.safe_dump(document, sort_keys=False))


def _values(line: dict[str, Any]) -> list[dict[str, Any]]:  # Any: JSON
    return line.get("readings", []) if line.get("device") == DEVICE else []


def _until(what: str, true: Callable[[], bool], plant: Plant, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > end:
            logs = [plant.podman.run("logs", "--tail=30", plant.stack.container(name)) for name in ("gateway", "broker", "consumer")]
            pytest.fail(f"not within {deadline_s:g} s: {what}\n" + "\n".join(f"{log.stdout[-3000:]}\n{log.stderr[-3000:]}" for log in logs))
        time.sleep(0.2)


def _secrets(folder: Path) -> None:
    """Passwords, as the how-to page makes them: each readable by the one user who needs it."""
    folder.mkdir()
    passwords = folder / "broker-passwords"
    lines = []
    for name in ("gateway", "consumer"):
        word = secrets.token_urlsafe(24)
        (folder / f"{name}-password").write_text(word)
        os.chown(folder / f"{name}-password", 10001, 10001)
        lines.append(f"{name}:{word}\n")
    passwords.write_text("".join(lines))
    _words("mosquitto_passwd", "-U", str(passwords))
    for file in (passwords, folder.parent / "mosquitto" / "acl"):
        os.chown(file, 1883, 1883)
        file.chmod(0o400)
    for file in folder.iterdir():
        file.chmod(0o400)


def _lead(address: str, port: int) -> None:
    """Have port 502 of the plant's network lead to the field, which listens on loopback alone."""
    Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    to = ("-d", address, "-p", "tcp", "--dport", "502", "-j", "DNAT", "--to-destination", f"127.0.0.1:{port}")
    _words("iptables", "-t", "nat", "-I", "PREROUTING", *to)


@asynccontextmanager
async def plant_of(podman: Podman, image: str, broker: str, folder: Path) -> AsyncIterator[Plant]:
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    _secrets(folder / "secrets")
    stack = composed(podman, folder / "compose.yaml", {"gateway": image, "broker": broker})
    stack.make_networks()
    try:
        async with FastModbus() as field:
            plant = Plant(stack, field)
            _lead(stack.address("plant"), field.ports[0])
            plant.write(lambda site: _point(site, stack.address("plant")))
            for service in ("broker", "gateway"):
                stack.up(service)
            yield plant
    finally:
        stack.down()


def _point(site: dict[str, Any], address: str) -> None:  # Any: YAML
    """To the field, whose scans are numbered."""
    (connection,) = site["connections"]
    (device,) = connection["devices"]
    connection["host"] = address
    device["scan_s"] = 0.2
    device["tags"].append({"name": "round", "at": f"holding:{ROUND}", "kind": "uint64"})


CONFINED: Final = """
import json, os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines())
def writes(folder):
    try:
        (pathlib.Path(folder) / "probe").touch()
        return True
    except OSError:
        return False
mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
print(json.dumps({
    "uid": os.getuid(), "caps": status["CapEff"].strip(), "bounding": status["CapBnd"].strip(), "no_new": status["NoNewPrivs"].strip(),
    "first": pathlib.Path("/proc/1/cmdline").read_bytes().split(b"\\0")[1].decode(),
    "root": next(mount[3].split(",")[0] for mount in mounts if mount[1] == "/"),
    "writes": [folder for folder in ("/", "/etc", "/etc/holdfast", "/opt/holdfast", "/usr", "/run", "/tmp", "/var/lib/holdfast", "/var/tmp",
                                     "/dev/shm") if writes(folder)],
}))
"""


@pytest.mark.usefixtures("alone")
async def test_values_arrive_whatever_ends(podman: Podman, image: str, broker: str, tmp_path: Path) -> None:
    """Confined as compose.yaml says it delivers everything: over a broker that is killed, and over a container in place of the last."""
    async with plant_of(podman, image, broker, tmp_path / "site") as plant:
        _until("it is healthy", plant.healthy, plant)
        plant.consume()
        _until("values arrive", lambda: len(plant.rounds()) > 20, plant)
        _is_confined(plant)
        _the_broker_is_killed(plant)
        _until("everything came that the field gave until now", _all_of(plant, (await plant.field.rounds())[0]), plant)
        newest = max(plant.rounds())
        _it_stands_still(plant)
        _another_container_takes_over(plant)
        _until("new values arrive", lambda: max(plant.rounds()) > newest + 20, plant)
        await _nothing_is_missing(plant)


def _all_of(plant: Plant, scans: int) -> Callable[[], bool]:
    """Each of the first ``scans``: what is live now comes before what waited."""
    wanted = set(range(1, scans + 1))
    return lambda: wanted <= plant.rounds()


def _is_confined(plant: Plant) -> None:
    """Seen from inside; limits as the engine has them; and no secret is told to whoever looks."""
    told = json.loads(plant.podman("exec", plant.gateway, "/opt/holdfast/bin/python", "-c", CONFINED))
    none = "0000000000000000"
    assert told["writes"] == ["/tmp", "/var/lib/holdfast", "/dev/shm"]
    assert (told["uid"], told["caps"], told["bounding"], told["no_new"], told["root"]) == (10001, none, none, "1", "ro")
    assert told["first"] == SAID
    limits = plant.podman.inspect("container", plant.gateway)
    assert (limits["HostConfig"]["Memory"], limits["HostConfig"]["PidsLimit"]) == (512 * 1024**2, 100)
    password = (plant.stack.folder / "secrets" / "gateway-password").read_text()
    logs = plant.podman.run("logs", plant.gateway)
    assert password not in json.dumps(limits) + logs.stdout + logs.stderr


def _the_broker_is_killed(plant: Plant) -> None:
    """SIGKILL, and for a while none: that is no reason to call the gateway unwell, or to start it anew."""
    name = plant.stack.container("broker")
    plant.podman("kill", "--signal=KILL", name)
    plant.podman("wait", "--condition=stopped", name)
    before = plant.pending()
    _until("records wait", lambda: plant.pending() > before + 20, plant)
    assert plant.healthy()
    plant.podman("start", name)


def _it_stands_still(plant: Plant) -> None:
    """A gateway that does nothing any more is unhealthy, and healthy again when it goes on."""
    plant.podman("kill", "--signal=STOP", plant.gateway)
    assert not plant.healthy()
    plant.podman("kill", "--signal=CONT", plant.gateway)
    _until("it is healthy again", plant.healthy, plant)


def _another_container_takes_over(plant: Plant) -> None:
    """SIGTERM ends it cleanly within the time that compose.yaml gives; its data outlive it."""
    seconds = plant.stack.document["services"]["gateway"]["stop_grace_period"]
    began = time.monotonic()
    assert plant.stack.stop("gateway") == 0
    assert time.monotonic() - began < float(seconds.removesuffix("s"))
    assert plant.podman.run("logs", plant.gateway).stderr.count('"event":"stopped"') == 1
    plant.stack.remove("gateway")
    plant.stack.up("gateway")
    _until("the next one is healthy", plant.healthy, plant)


async def _nothing_is_missing(plant: Plant) -> None:
    """By the consumer's account, and by the field's numbers: two scans may have been on their way when a connection ended."""
    plant.write(lambda site: site.update(connections=[]))
    plant.podman("kill", "--signal=HUP", plant.gateway)
    _until("everything is acknowledged", lambda: plant.pending() == 0, plant)
    assert plant.stack.stop("gateway") == 0
    plant.podman("stop", plant.consumer)
    assert plant.podman.inspect("container", plant.consumer)["State"]["ExitCode"] == 0
    verdict = plant.consumed()[-1]["verdict"]
    assert (verdict["missing"], verdict["lost"]) == (0, {})
    given, came = (await plant.field.rounds())[0], plant.rounds()
    assert came <= set(range(1, given + 1))
    assert given - len(came) <= 2


def test_a_document_that_is_wrong_is_told_and_ends_it(podman: Podman, image: str, tmp_path: Path) -> None:
    """Exit code 2, with what is wrong and where."""
    (tmp_path / "site.yaml").write_text("holdfast: 1\ngateway: {group: plant-7}\n")
    tmp_path.chmod(0o755)
    done = podman.run("run", "--rm", "--network=none", "--read-only", "--volume", f"{tmp_path}:/etc/holdfast:ro", image)
    assert done.returncode == 2
    assert "gateway" in done.stderr
    assert "name" in done.stderr


def test_what_was_tested_is_kept_as_an_archive(podman: Podman, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``podman load`` and ``docker load`` take it; it is written only where everything before was well."""
    archive = BUILD / f"holdfast-{version()}.tar"
    archive.unlink(missing_ok=True)
    podman("save", "--quiet", "--format=docker-archive", f"--output={archive}", image)
    names = _words("tar", "--list", "--file", str(archive)).split()
    assert "manifest.json" in names
    with capsys.disabled():
        sys.stdout.write(f"\n{archive.relative_to(ROOT)}: {archive.stat().st_size / 1e6:.0f} MB\n")


def test_the_same_project_gives_the_same_image(podman: Podman, image: str) -> None:
    """Built anew, every layer has the same bytes."""
    again = _built(podman, f"{IMAGE}:again", "--no-cache")
    layers = [podman.inspect("image", name)["RootFS"]["Layers"] for name in (image, again)]
    assert layers[0] == layers[1]
    assert len(layers[0]) >= 3
