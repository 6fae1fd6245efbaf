"""``scan``, ``find-number`` and ``trace`` from the command line, beside a gateway that runs and without one."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.scan import Report, connections
from gateway.config.drivers import installed
from protocols.contract import Candidate
from protocols.discover import mdns
from protocols.trace import pcapng
from protocols.trace.ring import Way
from tests.peers.holdfast import Holdfast, until
from tests.peers.leash import start
from tests.peers.libmodbus import LibmodbusServer, Request, registers

T = TypeVar("T")
DEADLINE_S = 60.0
VOLTS, ENERGY = 230.43, 1234.5


class Meter:
    """An energy meter on libmodbus, unit id 7: floats in input registers, as Eastron's SDM630 has them. For tests without a loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._server = LibmodbusServer(units=[7])
        self.do(self._server.start())
        self.port = self._server.port
        self.renew()

    def do(self, work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine is sent and yields is the loop's affair
        return self._runner.run(work)

    def renew(self) -> None:
        """As it was when it was new."""
        self.do(self._server.silent(7, False))
        self.do(self._server.set(7, "holding", 0, *[0] * 500))
        self.show(VOLTS)
        self.do(self._server.set(7, "input", 342, *registers("f", ENERGY)))
        self.requests()

    def show(self, volts: float) -> None:
        self.do(self._server.set(7, "input", 0, *registers("f", volts)))

    def hold(self, register: int, value: int) -> None:
        self.do(self._server.set(7, "holding", register, value))

    def silence(self) -> None:
        self.do(self._server.silent(7))

    def kick(self) -> None:
        self.do(self._server.kick())

    def requests(self) -> list[Request]:
        return self.do(self._server.requests())

    def connections(self) -> int:
        return self.do(self._server.connections())

    def end(self) -> None:
        self.do(self._server.stop())
        self._runner.close()


@pytest.fixture(scope="module")
def one_meter() -> Iterator[Meter]:
    meter = Meter()
    yield meter
    meter.end()


@pytest.fixture
def meter(one_meter: Meter) -> Meter:
    one_meter.renew()
    return one_meter


@pytest.fixture
def place(meter: Meter) -> tuple[str, ...]:
    return ("--host", "127.0.0.1", "--port", str(meter.port), "--unit-id", "7", "--last", "500")


@pytest.fixture(scope="module")
def gateway(one_meter: Meter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holdfast]:
    """One gateway that reads the meter."""
    with Holdfast(tmp_path_factory.mktemp("gateway"), site_of(one_meter.port)) as running:
        yield running


def holdfast(*arguments: str | Path, text: str = "") -> Result:
    """``holdfast ...`` with ``text`` as its standard input."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@contextmanager
def starting(*arguments: str | Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``holdfast ...`` in the background, as a process of its own; what it says goes to ``out``."""
    with out.open("wb") as sink:
        process = start(sys.executable, "-m", "gateway", *map(str, arguments), stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def site_of(port: int) -> dict[str, Any]:  # Any: JSON
    tags = [{"name": "u1", "at": "input:0", "kind": "float32"}]
    device = {"name": "meter", "unit_id": 7, "scan_s": 0.1, "tags": tags}
    line = {"name": "line", "type": "modbus-tcp", "host": "127.0.0.1", "port": port, "timeout_s": 0.5, "devices": [device]}
    return {"holdfast": 1, "gateway": {"group": "g", "name": "n"}, "connections": [line]}


@pytest.fixture
def site(meter: Meter, tmp_path: Path) -> Path:
    """A document about the meter, on which no gateway runs."""
    path = tmp_path / "site.yaml"
    path.write_text(json.dumps(site_of(meter.port)))
    return path


# ------------------------------------------------------------------------------------------------ without a gateway


def test_a_scan_gives_connections_to_paste(meter: Meter, tmp_path: Path) -> None:
    """What is pasted is a document without an error."""
    done = holdfast("scan", "tcp", "127.0.0.1", "--port", str(meter.port), "--unit-ids", "5-8", "--timeout", "0.1")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"unit id 7 on 127.0.0.1:{meter.port}: answers")
    blocks = yaml.safe_load(done.stdout.partition("\n\n")[2])
    (tmp_path / "site.yaml").write_text(json.dumps(site_of(1) | {"connections": blocks}))
    assert holdfast("check", tmp_path / "site.yaml").exit_code == 0
    assert [device["unit_id"] for block in blocks for device in block["devices"]] == [7]


def test_a_scan_in_json_is_one_candidate_a_line(meter: Meter) -> None:
    done = holdfast("scan", "tcp", "127.0.0.1", "--port", str(meter.port), "--unit-ids", "7", "--timeout", "0.1", "--json")
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["options"]["devices"] == [{"name": "device-7", "unit_id": 7}]


def test_a_scan_that_is_interrupted_gives_what_it_found(meter: Meter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with starting("scan", "tcp", "127.0.0.1", "--port", str(meter.port), "--unit-ids", "7,10-247", out=out) as process:
        until("unit id 7 is told", lambda: b"unit id 7" in out.read_bytes())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "unit_id: 7" in out.read_text()


def test_a_scan_where_nobody_answers_says_so(meter: Meter) -> None:
    done = holdfast("scan", "tcp", "127.0.0.1", "--port", str(meter.port), "--unit-ids", "9", "--timeout", "0.05")
    assert (done.exit_code, done.stderr.strip(), done.stdout) == (1, "nothing answered", "")


def test_a_budget_that_is_spent_is_said(meter: Meter) -> None:
    done = holdfast("scan", "tcp", "127.0.0.1", "--port", str(meter.port), "--unit-ids", "7-20", "--timeout", "0.05", "--requests", "5")
    assert done.exit_code == 0
    assert "before everything was asked" in done.stderr


def test_a_network_is_scanned_only_as_far_as_was_asked_for(meter: Meter) -> None:
    """Two addresses of loopback, of which one has a meter; a network that is larger than --hosts is refused."""
    options = ("--port", str(meter.port), "--unit-ids", "7", "--timeout", "0.1", "--rate", "100", "--json")
    done = holdfast("scan", "network", "127.0.0.0/30", *options)
    assert [json.loads(line)["options"]["host"] for line in done.stdout.splitlines()] == ["127.0.0.1"]
    refused = holdfast("scan", "network", "127.0.0.0/16", *options)
    assert (refused.exit_code, "more than --hosts 256" in refused.stderr) == (2, True)


@pytest.mark.parametrize("units", ["0-5", "1-300", "a", ""])
def test_unit_ids_that_no_device_has_are_refused(units: str) -> None:
    done = holdfast("scan", "tcp", "127.0.0.1", "--unit-ids", units)
    assert (done.exit_code, "unit ids" in done.stderr) == (2, True)


def test_a_number_is_found_and_narrowed_down_by_a_second_reading(meter: Meter, place: tuple[str, ...], tmp_path: Path) -> None:
    """Two places show 230.4; the second reading, in a run of its own, leaves the one that moved with the display."""
    meter.hold(50, 2304)
    keep = ("--keep", tmp_path / "volts.json", "--name", "u1")
    first = holdfast("find-number", *place, "230.4 V", *keep)
    assert first.exit_code == 0, first.stderr
    assert '- {name: u1, at: "input:0", kind: float32, unit: V}' in first.stdout
    assert "holding:50" in first.stdout
    meter.show(231.02)
    second = holdfast("find-number", *place, "--and", "231.0", *keep, "--drift", "0")
    assert second.stdout.splitlines() == ['- {name: u1, at: "input:0", kind: float32, unit: V}  # now 231.0200043']
    assert {request.function for request in meter.requests()} == {3, 4}


def test_a_number_is_narrowed_down_by_asking(meter: Meter, place: tuple[str, ...]) -> None:
    meter.hold(50, 2304)
    done = holdfast("find-number", *place, "230.4", "--ask", "--json", "--drift", "0", "--show", "1", text="nonsense\n230.4\n\n")
    assert done.exit_code == 0, done.stderr
    assert "is no number" in done.stderr
    assert [json.loads(line)["at"] for line in done.stdout.splitlines()] == ["input:0", "input:0"], "before, and after the second"


def test_a_number_that_is_nowhere_is_said_with_advice(place: tuple[str, ...]) -> None:
    done = holdfast("find-number", *place, "77.7")
    assert (done.exit_code, "type another value" in done.stderr) == (1, True)


def test_a_file_about_another_device_is_not_used(meter: Meter, place: tuple[str, ...], tmp_path: Path) -> None:
    keep = ("--keep", tmp_path / "volts.json")
    assert holdfast("find-number", *place, "230.4", *keep).exit_code == 0
    done = holdfast("find-number", "--host", "127.0.0.1", "--port", str(meter.port), "--unit-id", "8", "--and", "231.0", *keep)
    assert (done.exit_code, "is about unit id 7" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("230.4",), "give SITE CONNECTION SHOWN"),
        (("--host", "127.0.0.1"), "give what the display SHOWN shows"),
        (("--host", "127.0.0.1", "OFF"), "is no number"),
        (("--host", "127.0.0.1", "--and", "3"), "name the file"),
        (("--host", "127.0.0.1", "--and", "3", "--keep", "no.json"), "cannot be used"),
        (("no.yaml", "line", "3"), "no such document"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: tuple[str, ...], says: str) -> None:
    done = holdfast("find-number", *arguments)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_a_trace_without_a_gateway_scans_by_itself_and_is_played_again(site: Path, tmp_path: Path) -> None:
    """Recorded, kept, shown, served as a device, and read from it by the gateway's own probe."""
    file, out = tmp_path / "line.pcapng", tmp_path / "replay"
    done = holdfast("trace", site, "line", "--for", "1.5", "--out", file)
    assert done.exit_code == 0, done.stderr
    assert "no gateway runs" in done.stderr
    assert "< unit 7 input 0..1: 17254 28180" in done.stdout
    again = holdfast("trace", site, "line", "--for", "1", "--out", file)
    assert (again.exit_code, "there already" in again.stderr) == (2, True), "no trace is overwritten"
    assert holdfast("trace", "--show", file).stdout == done.stdout
    with starting("trace", "--replay", file, out=out) as process:
        until("it serves", lambda: b"port: " in out.read_bytes() or process.poll() is not None)
        port = out.read_text().partition("port: ")[2].split()[0]
        site.write_text(json.dumps(site_of(int(port))))
        probed = holdfast("probe", site, "line")
    assert probed.exit_code == 0, probed.stdout
    assert "unit id 7 answers" in probed.stdout


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"\xd4\xc3\xb2\xa1")
    for option in ("--show", "--replay"):
        done = holdfast("trace", option, file)
        assert (done.exit_code, "save it as pcapng" in done.stderr) == (2, True)


def test_a_trace_waits_for_trouble_and_gives_what_was_before_it(meter: Meter, site: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "line.pcapng", tmp_path / "out"
    with starting("trace", site, "line", "--until", "trouble", "--for", "50", "--out", file, out=out) as process:
        until("it scans", lambda: len(meter.requests()) > 0)
        until("it scans on", lambda: len(meter.requests()) > 0)
        meter.silence()
        assert process.wait(DEADLINE_S) == 0
    frames = pcapng.frames(file.read_bytes())
    assert [frame.way for frame in frames[:2]] == [Way.SENT, Way.RECEIVED]
    assert "did not answer" in next(frame.trouble for frame in frames if frame.trouble)


def test_a_trace_without_trouble_says_so_by_its_exit_code(site: Path) -> None:
    assert holdfast("trace", site, "line", "--until", "trouble", "--for", "0.5").exit_code == 1


# ------------------------------------------------------------------------------------------------ beside a running gateway


def test_the_running_gateway_traces_its_own_connection(meter: Meter, gateway: Holdfast, tmp_path: Path) -> None:
    """The device sees one connection all the time; a second trace is refused; one that was killed has ended for the gateway too."""
    out = tmp_path / "out"
    with starting("trace", gateway.site_file, "line", "--for", "50", out=out):
        until("the trace runs", lambda: b"< unit 7 input 0..1" in out.read_bytes())
        assert meter.connections() == 1
        second = holdfast("trace", gateway.site_file, "line", "--for", "1")
        assert (second.exit_code, "somebody traces line already" in second.stderr) == (1, True)
    assert b"running gateway" in out.read_bytes()
    until("the trace has ended", lambda: holdfast("trace", gateway.site_file, "line", "--for", "0.3").exit_code == 0)


def test_a_trace_goes_on_over_a_connection_that_is_lost(meter: Meter, gateway: Holdfast, tmp_path: Path) -> None:
    """Trouble is what one wants to see: the trace is there when the connection comes back."""
    out = tmp_path / "out"
    with starting("trace", gateway.site_file, "line", "--for", "50", out=out):
        until("frames come", lambda: b"< unit 7" in out.read_bytes())
        meter.kick()
        until("the end is told", lambda: b"closed by the peer" in out.read_bytes())
        until("frames come again", lambda: b"< unit 7" in out.read_bytes().partition(b"closed by the peer")[2])


def test_numbers_and_unit_ids_are_found_over_the_gateways_connection(meter: Meter, gateway: Holdfast) -> None:
    done = holdfast("find-number", gateway.site_file, "line", "1234.5 kWh", "--last", "400", "--name", "energy")
    assert '- {name: energy, at: "input:342", kind: float32, unit: kWh}' in done.stdout, done.stderr
    assert "running gateway" in done.stderr
    scanned = holdfast("scan", "connection", gateway.site_file, "line", "--unit-ids", "7-8")
    assert "unit id 7" in scanned.stdout, scanned.stderr
    assert meter.connections() == 1
    assert {request.function for request in meter.requests()} <= {3, 4, 17, 43}, "nothing but reads"


def test_a_connection_that_the_gateway_does_not_run_is_said(meter: Meter, gateway: Holdfast) -> None:
    changed = site_of(meter.port)
    changed["connections"].append({**changed["connections"][0], "name": "other", "devices": []})
    gateway.write(changed)
    try:
        done = holdfast("trace", gateway.site_file, "other", "--for", "1")
    finally:
        gateway.write(site_of(meter.port))
    assert (done.exit_code, "has the document changed" in done.stderr) == (1, True)


def test_a_device_that_says_what_it_is_leads_to_its_template(capsys: pytest.CaptureFixture[str]) -> None:
    """As a SDM630 of Eastron would, by function 43/14 or 17."""
    report = Report(as_json=False)
    report.take(Candidate(where="unit id 1 on here", detail="answers, vendor Eastron, product SDM630"))
    report.take(Candidate(where="unit id 2 on here", detail="answers"))
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "    described in the template eastron/sdm630"
    assert told[-1] == "unit id 2 on here: answers"


def _announced() -> list[dict[str, Any]]:  # Any: JSON
    found: list[dict[str, Any]] = [mdns.options_of(kind, "192.0.2.7", 8443, {"path": "/ua"}) for kind in mdns.KINDS]
    found.append({"type": "coap", "devices": [{"name": "coap-1", "host": "192.0.2.7", "resources": [{"path": "/t"}]}]})
    found.append({"type": "opcua", "endpoint": "opc.tcp://h:1", "security": {"policy": "none"}})
    return [options for options in found if options]


@pytest.mark.parametrize("options", _announced(), ids=lambda options: str(options["type"]))
def test_what_is_proposed_is_what_the_drivers_take(options: dict[str, Any]) -> None:  # Any: JSON
    """Each finder's keys are those of the driver's options."""
    (block,) = connections([options])
    msgspec.convert(block, installed()[options["type"]].options)
