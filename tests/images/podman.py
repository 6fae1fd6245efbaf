"""podman with a storage and networks of its own, and what ``compose.yaml`` says, done with it.

Networks are bridges in the network namespace that the caller is in, so it has to be one of its own. Limits of open files and processes are
named, because podman would otherwise raise them, which needs CAP_SYS_RESOURCE; health checks are run when asked for, because podman's
timers are systemd's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

DEADLINE_S: Final = 600
LIMITS: Final = ("--ulimit", "nofile=1024:20000", "--ulimit", "nproc=4096:4096")
SECONDS: Final = "s"


class PodmanFailed(Exception):
    """podman said no; the text is its own."""


class Podman:
    """``Podman(folder)("images")``: what ``podman images`` prints, on a storage in ``folder``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "containers.conf"
        settings.write_text('[network]\nnetwork_backend = "netavark"\n[engine]\nruntime = "runc"\nevents_logger = "file"\n')
        self._words: tuple[str, ...] = ("env", f"CONTAINERS_CONF={settings}", "podman", "--cgroup-manager=cgroupfs", "--log-level=fatal")
        self._words += tuple(f"--{name}={folder / name}" for name in ("root", "runroot", "tmpdir", "network-config-dir"))

    def run(self, *words: str, deadline_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        limits = LIMITS if words[0] in ("build", "create", "run") else ()
        command = (*self._words, words[0], *limits, *words[1:])
        return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, check=False)

    def __call__(self, *words: str, deadline_s: float = DEADLINE_S) -> str:
        """Raises PodmanFailed."""
        done = self.run(*words, deadline_s=deadline_s)
        if done.returncode:
            raise PodmanFailed(f"podman {' '.join(words)}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()

    def inspect(self, *words: str) -> dict[str, Any]:  # Any: JSON
        found: list[dict[str, Any]] = json.loads(self(*words[:-1], "inspect", words[-1]))  # Any: JSON
        return found[0]


@dataclass
class Composed:
    """The services of a compose file as containers ``<name>_<service>``, each started with every option that stands there."""

    podman: Podman
    folder: Path
    document: dict[str, Any]  # Any: YAML
    images: Mapping[str, str]
    """Which image stands for a service."""
    made: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.document["name"])

    def container(self, service: str) -> str:
        return f"{self.name}_{service}"

    def make_networks(self) -> None:
        for name, options in self.document["networks"].items():
            internal = ("--internal",) if (options or {}).get("internal") else ()
            self.podman("network", "create", *internal, f"{self.name}_{name}")

    def address(self, network: str) -> str:
        """The machine's own address in a network, which its containers reach."""
        return str(self.podman.inspect("network", f"{self.name}_{network}")["subnets"][0]["gateway"])

    def up(self, service: str) -> None:
        options: dict[str, Any] = dict(self.document["services"][service])  # Any: YAML
        options.pop("image")
        command: list[str] = options.pop("command", [])
        words = [word for key, value in options.items() for word in OPTIONS[key](self, value)]
        alias = ("--network-alias", service)
        self.podman("run", "--detach", "--pull=never", "--name", self.container(service), *alias, *words, self.images[service], *command)

    def stop(self, service: str) -> int:
        """SIGTERM, within the service's own grace time; the exit code."""
        self.podman("stop", self.container(service))
        return int(self.podman.inspect("container", self.container(service))["State"]["ExitCode"])

    def remove(self, service: str) -> None:
        self.podman("rm", "--force", "--time=0", self.container(service))

    def down(self) -> None:
        """Everything goes, volumes too."""
        self.podman("rm", "--all", "--force", "--time=0")
        self.podman("volume", "prune", "--force")
        for name in self.document["networks"]:
            self.podman.run("network", "rm", "--force", f"{self.name}_{name}")


def composed(podman: Podman, file: Path, images: Mapping[str, str]) -> Composed:
    return Composed(podman, file.parent, yaml.safe_load(file.read_text()), images)


Words = list[str]


def _volume(run: Composed, text: str) -> str:
    source, rest = text.split(":", 1)
    return f"{(run.folder / source).resolve()}:{rest}" if source.startswith(".") else f"{run.name}_{source}:{rest}"


def _secret(run: Composed, name: str) -> str:
    return f"{(run.folder / run.document['secrets'][name]['file']).resolve()}:/run/secrets/{name}:ro"


def _health(_: Composed, value: Any) -> Words:  # Any: YAML
    times = [f"--health-{name.replace('_', '-')}={value[name]}" for name in ("interval", "timeout", "start_period", "retries")]
    assert value["test"][0] == "CMD"
    assert set(value) == {"test", "interval", "timeout", "start_period", "retries"}
    return ["--health-cmd", json.dumps(value["test"]), *times]


def _each(option: str, word: Callable[[Composed, str], str] = lambda _, text: text) -> Callable[[Composed, Any], Words]:  # Any: YAML
    return lambda run, values: [one for value in values for one in (option, word(run, value))]


def _one(option: str, word: Callable[[Any], str] = str) -> Callable[[Composed, Any], Words]:  # Any: YAML
    return lambda _, value: [f"{option}={word(value)}"]


OPTIONS: Final[dict[str, Callable[[Composed, Any], Words]]] = {  # Any: YAML
    "cap_drop": _each("--cap-drop"),
    "depends_on": lambda run, value: [],
    "entrypoint": _one("--entrypoint", json.dumps),
    "healthcheck": _health,
    "mem_limit": _one("--memory"),
    "networks": lambda run, value: ["--network", ",".join(f"{run.name}_{name}" for name in value)],
    "pids_limit": _one("--pids-limit"),
    "read_only": lambda run, value: ["--read-only", "--read-only-tmpfs=false"] if value else [],
    "restart": _one("--restart"),
    "secrets": _each("--volume", _secret),
    "security_opt": _each("--security-opt"),
    "stop_grace_period": _one("--stop-timeout", lambda text: text.removesuffix(SECONDS)),
    "tmpfs": _each("--tmpfs"),
    "user": _one("--user"),
    "volumes": _each("--volume", _volume),
}
"""What each key of a service is to podman; one that is not here fails the test."""
