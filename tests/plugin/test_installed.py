"""The example is installed as anybody's package would be, and the gateway reads, checks and probes with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.peers.holdfast import Holdfast, until
from tests.peers.leash import start
from tests.plugin.rig import PROGRAM

EXAMPLE = Path(__file__).with_name("example")
README = EXAMPLE / "holdfast_scpi/README.md"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into, without a network; the package is built from a copy."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    words = ("install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "target"))
    subprocess.run([sys.executable, "-m", "pip", *words, str(folder / "source")], check=True, timeout=120)
    return folder / "target"


@pytest.fixture
def port() -> Iterator[int]:
    """Where the simulated instrument serves the values of the README's sample."""
    process = start(sys.executable, str(PROGRAM), "0", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            at = int(process.stdout.readline().split()[1])
            for setting in ("*IDN Example,PS-1,0,1.0", "MEASure:VOLTage 12.25", "VOLTage 12.5", "OUTPut 1"):
                process.stdin.write(f"set {setting}\n".encode())
                process.stdin.flush()
                assert process.stdout.readline().startswith(b"ok")
            yield at
        finally:
            process.kill()


def holdfast(target: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(target) if target else ""}
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def sample() -> str:
    (found,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    return f"holdfast: 1\ngateway: {{group: lab, name: bench-3}}\n{found}"


def test_its_readme_is_right_where_it_is_installed_and_unknown_where_it_is_not(target: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(sample())
    well, without = holdfast(target, "check", str(site)), holdfast(None, "check", str(site))
    assert (well.returncode, well.stderr) == (0, "")
    assert without.returncode == 2
    assert "scpi" in without.stderr


def test_its_problems_are_told_with_the_line_of_the_document(target: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(sample().replace("MEASure:VOLTage?", "MEASure:VOLTage"))
    done = holdfast(target, "check", str(site))
    assert done.returncode == 2
    assert "connections[0].devices[0].tags[0].at" in done.stderr
    assert "write one query that ends with ?" in done.stderr


def test_its_batches_reach_the_journal(target: Path, tmp_path: Path, port: int) -> None:
    site = yaml.safe_load(sample())
    site["connections"][0] |= {"host": "127.0.0.1", "port": port}
    site |= {"journal": {"path": str(tmp_path / "journal")}, "telemetry": {"metrics_port": 0}}
    gateway = Holdfast(tmp_path / "gateway", site, environment={"PYTHONPATH": str(target)})
    with gateway:
        probed = holdfast(target, "probe", str(gateway.site_file), "supply")
        assert (probed.returncode, "Example,PS-1,0,1.0" in probed.stdout) == (0, True)
        until("its values are in the journal", lambda: {"12.25", "12.5"} <= values(target, gateway.site_file))


def values(target: Path, site: Path) -> set[str]:
    """Every number that the journal holds, as text."""
    return set(re.findall(r"\d+\.\d+", holdfast(target, "journal", "tail", str(site)).stdout))
