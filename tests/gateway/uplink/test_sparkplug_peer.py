"""A whole session on a real broker, decoded by the npm package ``sparkplug-payload``: every name, kind and value arrives."""

from __future__ import annotations

import time
from pathlib import Path

from gateway.config.model import SparkplugUplink
from protocols.model import Device, Kind, Quality, Tag
from tests.gateway.uplink.host import host
from tests.gateway.uplink.plant import batch, kept, plant, sparkplug
from tests.peers.mosquitto import Mosquitto
from tests.peers.sparkplug_payload import EXTREMES, TYPE_NAME, decoded, same

EVERYTHING = Device("line", "everything", tuple(Tag(name=f"of/{kind}", kind=kind) for kind in Kind))


async def test_a_peer_reads_a_whole_session(tmp_path: Path) -> None:
    """History, live values and bad ones, of every kind, with its extremes."""
    rounds = range(max(len(values) for values in EXTREMES.values()))
    expected = [(kind, EXTREMES[kind][number % len(EXTREMES[kind])]) for number in rounds for kind in Kind]
    with Mosquitto(tmp_path / "broker") as broker:
        async with plant(tmp_path / "journal") as made, host(broker.port) as seen:
            made.has(EVERYTHING)
            for kind, value in expected[: 4 * len(Kind)]:
                made.bring(EVERYTHING, {f"of/{kind}": value})
            made.journal.reader("cloud")
            await made.stored()
            async with kept(sparkplug(made, SparkplugUplink(name="cloud", host="127.0.0.1", port=broker.port))):
                await seen.expect("DBIRTH", "everything")
                for kind, value in expected[4 * len(Kind) :]:
                    made.bring(EVERYTHING, {f"of/{kind}": value})
                made.take(batch(EVERYTHING, {"of/bytes": b""}, time_ns=time.time_ns(), quality=Quality.BAD_TIMEOUT))
                await made.delivered()
                await seen.until(lambda: sum(one.mark.records for one in seen.all("mark") if one.mark is not None) == len(expected) + 1)
    answers = decoded([one.message.payload for one in seen.seen if one.payload is not None])
    told = [one for answer in answers if answer["body"] for one in answer["metrics"]]
    history = [one for one in told if one["historical"]]
    assert len(history) >= 4 * len(Kind)
    in_order = history + [one for one in told if not one["historical"]]
    assert in_order[-1]["value"] is None
    assert in_order[-1]["properties"]["Quality"] == "0"
    assert [(one["name"], one["type"]) for one in in_order[:-1]] == [(f"of/{kind}", TYPE_NAME[kind]) for kind, _ in expected]
    assert not [(one, want) for one, (kind, want) in zip(in_order[:-1], expected, strict=True) if not same(kind, one["value"], want)]
