"""What the driver does with a real server beyond the contract: structures, methods, events, alarms, namespaces, deadbands, browsing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
from click.testing import CliRunner

from gateway import config
from gateway.cli import main
from protocols.clock import SystemClock
from protocols.contract import Offer
from protocols.model import Kind, OutcomeState, Quality
from protocols.opcua.config import Event
from protocols.opcua.driver import OPCUA
from tests.peers.opcua import URI, OpcUaServer
from tests.protocols.opcua.plant import at, options, tag, watching, write

ONE = f"nsu={URI};s=one"


async def test_parts_of_a_structure_and_of_an_array_are_tags(server: OpcUaServer) -> None:
    wanted = options(
        server,
        tag("x", Kind.FLOAT64, at("axis > Position > X")),
        tag("second", Kind.FLOAT64, at("axis > Path > [1] > Y")),
        tag("limit", Kind.INT32, at("axis > Limits > [0]")),
        tag("state", Kind.INT16, at("axis > State")),
        tag("on", Kind.BOOL, at("axis > On")),
        tag("name", Kind.STRING, at("axis > Name")),
        tag("whole", Kind.STRING, at("axis")),
        tag("element", Kind.FLOAT64, at("array > [2]"), scale=10.0),
        tag("too-far", Kind.INT32, at("axis > Limits > [7]")),
        tag("no-field", Kind.INT32, at("axis > Nothing")),
    )
    async with watching(wanted) as (_, seen, until):
        await until("all came", lambda: len(seen.rows) == 10)
    values = {name: seen.last(name) for name in ("x", "second", "limit", "state", "on", "name", "element")}
    assert values == {"x": 12.25, "second": 4.0, "limit": -100, "state": 1, "on": True, "name": "X1", "element": 35.0}
    assert json.loads(seen.last("whole"))["Path"] == [{"X": 1.0, "Y": 2.0}, {"X": 3.0, "Y": 4.0}]
    assert seen.quality("too-far") == seen.quality("no-field") == Quality.BAD_NODE_ID_UNKNOWN


async def test_values_are_written_in_the_servers_type_and_elements_alone(server: OpcUaServer) -> None:
    wanted = options(
        server,
        tag("int16", Kind.FLOAT64, writable=True),
        tag("text-set", Kind.STRING, writable=True),
        tag("element", Kind.FLOAT64, at("array > [1]"), writable=True),
        tag("locked", Kind.INT16, writable=True),
        tag("array", Kind.FLOAT64, writable=True),
    )
    async with watching(wanted) as (session, seen, until):
        assert (await write(session, "int16", 12)).state is OutcomeState.VERIFIED
        refused = await write(session, "int16", 12.5)
        assert (refused.state, "Int16" in refused.detail) == (OutcomeState.REFUSED, True)
        assert (await write(session, "int16", 40000)).state is OutcomeState.REFUSED
        assert (await write(session, "text-set", "Größe")).read_back == "Größe"
        assert (await write(session, "element", 8.5)).state is OutcomeState.VERIFIED
        locked = await write(session, "locked", 1)
        assert (locked.state, "BadNotWritable" in locked.detail) == (OutcomeState.REFUSED, True)
        assert "array" in (await write(session, "array", 1.0)).detail
        await until("the element is seen", lambda: seen.last("element") == 8.5)


async def test_methods_are_commands(server: OpcUaServer) -> None:
    wanted = options(
        server,
        tag("start", Kind.BOOL, f"{ONE} > start()", writable=True),
        tag("add", Kind.STRING, f"{ONE} > add()", writable=True),
        tag("nothing", Kind.BOOL, f"{ONE} > nothing()", writable=True),
    )
    async with watching(wanted) as (session, seen, until):
        before = await server.calls()
        assert (await write(session, "start", True)).state is OutcomeState.VERIFIED
        added = await write(session, "add", "[1, 2.5]")
        assert (added.state, added.detail) == (OutcomeState.VERIFIED, "the server carried add out and returned 3.5")
        wrong = [await write(session, "add", "[1]"), await write(session, "add", '["a", 1]'), await write(session, "nothing", True)]
        assert [outcome.state for outcome in wrong] == [OutcomeState.REFUSED] * 3
        assert ["2 arguments" in wrong[0].detail, "argument a" in wrong[1].detail, "it has: add, start" in wrong[2].detail] == [True] * 3
        assert await server.calls() == before + 2
        await until("a method has no value", lambda: seen.quality("start") == Quality.BAD_NOT_READABLE)


async def test_events_come_each_as_a_record_though_several_come_at_once(server: OpcUaServer) -> None:
    wanted = options(
        server,
        tag("all", Kind.STRING, "i=2253", event=Event()),
        tag("severe", Kind.STRING, "i=2253", event=Event(severity=600)),
        tag("level", Kind.UINT16),
        publishing_s=0.5,
    )
    async with watching(wanted) as (_, seen, until):
        await until("it is subscribed", lambda: seen.last("level") is not None)
        for number in range(20):
            await server.event(500 + 10 * number, f"event {number}")
        await until("all came", lambda: len(seen.rows.get("all", [])) >= 20)
        await until("the severe came", lambda: len(seen.rows.get("severe", [])) >= 10)
    told = [json.loads(value) for value, _, _ in seen.rows["all"]]
    ours = [event for event in told if event["message"].startswith("event ")]
    assert [event["message"] for event in ours] == [f"event {number}" for number in range(20)]
    assert ours[0]["severity"] == 500
    assert ours[0]["source_node"] == f"nsu={URI};s=one"
    assert len({event["id"] for event in ours}) == 20
    assert min(json.loads(value)["severity"] for value, _, _ in seen.rows["severe"]) == 600


async def test_an_alarm_is_told_when_it_comes_and_again_to_whoever_comes_later(server: OpcUaServer) -> None:
    """ConditionRefresh: an alarm that holds is told to a new subscriber, too."""
    wanted = options(server, tag("alarms", Kind.STRING, "i=2253", event=Event(type="i=2915")), tag("level", Kind.UINT16))
    await server.set("one/pressure", 1)
    async with watching(wanted) as (_, seen, until):
        await until("it is subscribed", lambda: seen.last("level") is not None)
        await server.set("one/pressure", 8.5)
        await until("the alarm came", lambda: any(json.loads(value)["active"] for value, _, _ in seen.rows.get("alarms", [])))
    again = msgspec.structs.replace(wanted, name="later")
    async with watching(again) as (_, seen, until):
        await until("it is told again", lambda: any(json.loads(value)["active"] for value, _, _ in seen.rows.get("alarms", [])))
        await server.set("one/pressure", 1)
        await until("it is over", lambda: not json.loads(seen.last("alarms") or '{"active": true}')["active"])
    told = json.loads(seen.rows["alarms"][0][0])
    assert (told["condition_id"].startswith(f"nsu={URI};"), told["acknowledged"], told["retain"]) == (True, False, True)


async def test_the_server_leaves_small_changes_out_where_it_is_asked_to(server: OpcUaServer) -> None:
    await server.level("one", 100)
    wanted = options(server, tag("level", Kind.UINT16, server_deadband=10.0), tag("pressure", Kind.FLOAT64, server_deadband_percent=50.0))
    async with watching(wanted) as (_, seen, until):
        await until("it is subscribed", lambda: seen.last("level") == 100 and seen.last("pressure") is not None)
        for value in (105, 109, 120):
            await server.level("one", value)
        await until("the large change came", lambda: seen.last("level") == 120)
    assert [value for value, _, _ in seen.rows["level"]] == [100, 120]


async def test_a_server_that_cannot_do_a_deadband_sends_every_change_and_says_so(server: OpcUaServer) -> None:
    wanted = options(server, tag("level", Kind.UINT16, server_deadband_percent=10.0))  # level has no EURange
    async with watching(wanted) as (_, seen, until):
        await server.level("one", 1)
        await until("a change came", lambda: seen.last("level") == 1)
        await server.level("one", 2)
        await until("the next came", lambda: seen.last("level") == 2)
    assert any("server_deadband" in finding for finding in seen.findings)


async def test_values_between_two_publishes_are_kept_and_an_overflow_is_told(server: OpcUaServer) -> None:
    await server.level("one", 0)
    wanted = options(server, tag("level", Kind.UINT16, queue_size=3), sampling_s=0.0)
    async with watching(wanted) as (session, seen, until):
        await until("it is subscribed", lambda: seen.last("level") == 0)
        await server.level("one", *range(1, 9))
        await until("the last came", lambda: seen.last("level") == 8)
        counted = session.stats.errors.get("overflow", 0)
    assert [value for value, _, _ in seen.rows["level"]][-3:] == [6, 7, 8]
    assert counted == 1
    assert any("queue" in finding for finding in seen.findings)


async def test_a_server_that_reorders_its_namespaces_is_survived(server: OpcUaServer) -> None:
    """Node ids name the URI; the index may be another after a restart."""
    wanted = options(server, tag("level", Kind.UINT16), tag("other", Kind.UINT16, "nsu=http://example.com/gone;s=x"))
    async with watching(wanted) as (_, seen, until):
        await until("it came", lambda: seen.last("level") is not None)
    assert seen.quality("other") == Quality.BAD_NODE_ID_UNKNOWN
    await server.stop()
    server.wish(namespaces=["http://example.com/new", "http://example.com/newer"])
    await server.start()
    await server.level("one", 77)
    async with watching(wanted) as (_, seen, until):
        await until("it came again", lambda: seen.last("level") == 77)


async def test_a_browse_tells_values_with_kind_access_and_unit_and_goes_on_where_it_stopped(server: OpcUaServer) -> None:
    wanted = options(server)

    async def browse(start: str, limit: int) -> list[Offer]:
        return [offer async for offer in OPCUA.browse(wanted, start=start, limit=limit)]

    whole = await browse(ONE, 1000)
    found = {offer.at: offer for offer in whole}
    assert len(found) == len(whole)
    pressure = found[at("pressure")]
    assert (pressure.kind, pressure.unit, pressure.writable) == (Kind.FLOAT64, "bar", True)
    assert (found[at("int64/least")].kind, found[at("int64/least")].value) == (Kind.INT64, str(-(2**63)))
    assert (found[at("axis > Position > X")].kind, found[at("axis > Position > X")].value) == (Kind.FLOAT64, "12.25")
    assert not found[at("level")].writable
    assert await browse(ONE, 5) == whole[:5]
    (alone,) = await browse(at("level"), 10)
    assert alone.at == at("level")
    assert len(await browse("", 400)) == 400


async def test_a_probe_says_which_tag_is_wrong(server: OpcUaServer) -> None:
    wanted = options(
        server,
        tag("level", Kind.UINT16),
        tag("text", Kind.FLOAT32),
        tag("ghost", Kind.UINT16),
        tag("away", Kind.UINT16, "nsu=http://nobody.example.com;s=x"),
    )
    report = await OPCUA.probe(wanted)
    said = "\n".join(report.findings)
    assert not report.ok
    assert ["String" in said, "BadNodeIdUnknown" in said, "no namespace http://nobody.example.com" in said] == [True] * 3
    assert "1 of 4 tags" in said
    assert (await OPCUA.probe(options(server, tag("level", Kind.UINT16)))).ok


async def test_times_are_the_servers(server: OpcUaServer) -> None:
    before = SystemClock().time_ns()
    async with watching(options(server, tag("level", Kind.UINT16))) as (_, seen, until):
        await until("it came", lambda: seen.last("level") is not None)
        await server.level("one", 4321)
        await until("the change came", lambda: seen.last("level") == 4321)
    _, _, first = seen.rows["level"][0]
    _, _, second = seen.rows["level"][-1]
    assert first < second
    assert before - 10**9 < second < SystemClock().time_ns()


async def test_a_browse_on_the_command_line_becomes_tags_of_the_site(server: OpcUaServer, tmp_path: Path) -> None:
    """Listed in two parts, imported, and right."""
    site, listed = tmp_path / "site.yaml", tmp_path / "tags.csv"
    site.write_text(
        "holdfast: 1\ngateway: {group: g, name: n}\nconnections:\n  - name: plant\n    type: opcua   # the PLC\n"
        f"    endpoint: {server.endpoint}\n    security: {{policy: none}}\n    devices:\n      - name: one\n        tags: []\n"
    )

    def run(*words: str) -> str:
        result = CliRunner().invoke(main, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    first = await asyncio.to_thread(run, "browse", str(site), "plant", "--start", ONE, "--limit", "5")
    last = first.splitlines()[-1].split(",")[1]
    rest = await asyncio.to_thread(run, "browse", str(site), "plant", "--start", ONE, "--after", last)
    whole = await asyncio.to_thread(run, "browse", str(site), "plant", "--start", ONE)
    assert first + rest.split("\n", 1)[1] == whole
    listed.write_text(whole)
    await asyncio.to_thread(run, "import", str(site), "plant", "one", str(listed), "--write")
    document, problems = config.judge(site)
    assert document is not None, problems
    assert "# the PLC" in site.read_text()
    report = await OPCUA.probe(document.connections[0])
    assert report.ok, report.findings
