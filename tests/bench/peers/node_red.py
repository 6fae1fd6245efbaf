"""Node-RED with node-red-contrib-modbus: one process, its flow written anew for each load; ``README.md`` says why it looks so."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.loads import Load
from tests.bench.peers.process import MissingPeer, running

HERE: Final = Path(__file__).parent / "node-red"
MODULES: Final = HERE / "node_modules"
PROGRAM: Final = MODULES / "node-red" / "red.js"
SETTINGS: Final = """module.exports = {
  httpAdminRoot: false, httpNodeRoot: false, disableEditor: true, uiHost: "127.0.0.1", uiPort: 0,
  telemetry: {enabled: false, updateNotification: false}, diagnostics: {enabled: false, ui: false},
  logging: {console: {level: "warn", metrics: false, audit: false}}, flowFilePretty: false, credentialSecret: false,
  mqttReconnectTime: 1000, nodesExcludes: UNUSED,
};
"""
UNUSED: Final = (
    *("21-debug.js", "24-complete.js", "25-catch.js", "25-status.js", "60-link.js", "10-switch.js", "15-change.js", "16-range.js"),
    *("80-template.js", "89-delay.js", "89-trigger.js", "90-exec.js", "rbe.js", "06-httpproxy.js", "21-httpin.js", "21-httprequest.js"),
    *("22-websocket.js", "31-tcpin.js", "32-udp.js", "70-CSV.js", "70-HTML.js", "70-JSON.js", "70-XML.js", "70-YAML.js", "17-split.js"),
    *("18-sort.js", "19-batch.js", "10-file.js", "23-watch.js"),
)
"""Core nodes that the flow has no use for: not loaded, so that they cost no memory."""
FULL_SPEED_S: Final = 0.02
"""The period with 100 devices of 100 tags at which it delivers most for its cost; shorter ones bring hardly more."""
MOST: Final = 124
"""Registers of one request: whole float32 pairs, as many as Modbus allows."""

COLLECT: Final = """const buffer = msg.responseBuffer.buffer, first = msg.input.payload.address / 2;
const values = first ? context.values : (context.values = {});
if (!values) return null;
for (let at = 0, tag = first; at < buffer.length; at += 4, tag++) values["v" + tag] = buffer.readFloatBE(at);
if (first + buffer.length / 4 < TAGS) return null;
context.values = undefined;
return {payload: JSON.stringify(values)};
"""
"""The blocks of a scan become one object."""
SPLIT: Final = """const buffer = msg.responseBuffer.buffer, out = [];
for (let at = 0, tag = msg.input.payload.address / 2; at < buffer.length; at += 4, tag++)
  out.push({topic: "nodered/DEVICE/v" + tag, payload: buffer.readFloatBE(at)});
return [out];
"""
"""Each value becomes a message with a topic of its own."""

Node = dict[str, Any]
"""JSON."""


@dataclass(frozen=True)
class Style:
    """One way to build the flow."""

    queue: bool
    """The client node's command queue: on by default; off there is no wait between two requests."""
    status: bool
    """What the read nodes do is shown in the editor: on by default."""
    qos: int
    split: bool
    """A topic for each tag; otherwise an object for each scan."""


LEAN: Final = Style(queue=False, status=False, qos=1, split=False)
PALETTE: Final = Style(queue=True, status=True, qos=1, split=True)
"""The nodes as they come out of the palette, and every tag a topic."""


@asynccontextmanager
async def node_red(load: Load, ports: Sequence[int], broker_port: int, folder: Path, style: Style = LEAN) -> AsyncIterator[int]:
    """The process id of a Node-RED that reads ``load`` over ``ports``."""
    if told := missing():
        raise MissingPeer(told)
    (folder / "settings.js").write_text(SETTINGS.replace("UNUSED", json.dumps(UNUSED)))
    (folder / "flows.json").write_text(json.dumps(flow(load, ports, broker_port, style)))
    command = (_node() or "node", str(PROGRAM), "--userDir", str(folder), "--settings", str(folder / "settings.js"), "flows.json")
    async with running(command, folder, {"NODE_ENV": "production"}) as pid:
        yield pid


@asynccontextmanager
async def node_red_topics(load: Load, ports: Sequence[int], broker_port: int, folder: Path) -> AsyncIterator[int]:
    """The same in the other style, for information."""
    async with node_red(load, ports, broker_port, folder, PALETTE) as pid:
        yield pid


def missing() -> str | None:
    """How to install it, where it is not."""
    if _node() is None:
        return "node is not installed: install the packages nodejs and npm"
    return None if PROGRAM.exists() else f"Node-RED is not installed: npm ci --ignore-scripts --prefix {HERE}"


def version() -> str:
    names = ("node-red", "node-red-contrib-modbus")
    return " ".join(f"{name} {json.loads((MODULES / name / 'package.json').read_text())['version']}" for name in names)


def _node() -> str | None:
    return shutil.which("node") or shutil.which("nodejs")


def flow(load: Load, ports: Sequence[int], broker_port: int, style: Style) -> list[Node]:
    """One tab: for each device a client node, the nodes that read it, a function that decodes, and an MQTT node."""
    nodes: list[Node] = [
        {"id": "tab", "type": "tab", "label": "bench"},
        {"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": broker_port, "protocolVersion": "4", "keepalive": 60},
    ]
    nodes[1] |= {"cleansession": True, "autoConnect": True}
    blocks = [(at, min(MOST, 2 * load.tags - at)) for at in range(0, 2 * load.tags, MOST)]
    for at, port in enumerate(ports):
        name = f"device-{at}"
        nodes += [_client(name, port, style), _out(name, style)]
        nodes += _device(name, load, blocks, style)
    return nodes


def _device(name: str, load: Load, blocks: list[tuple[int, int]], style: Style) -> list[Node]:
    decode = SPLIT.replace("DEVICE", name) if style.split else COLLECT.replace("TAGS", str(load.tags))
    scan_s = load.scan_s if load.is_paced else FULL_SPEED_S
    return [*(_read(name, at, length, scan_s, style) for at, length in blocks), _function(name, decode)]


def _client(name: str, port: int, style: Style) -> Node:
    node: Node = {
        "id": f"client-{name}",
        "type": "modbus-client",
        "name": name,
        "clienttype": "tcp",
        "tcpHost": "127.0.0.1",
        "tcpPort": port,
    }
    node |= {"tcpType": "DEFAULT", "unit_id": 1, "bufferCommands": style.queue, "commandDelay": 1, "parallelUnitIdsAllowed": True}
    node |= {
        "clientTimeout": 2000,
        "reconnectOnTimeout": True,
        "reconnectTimeout": 2000,
        "queueLogEnabled": False,
        "stateLogEnabled": False,
    }
    return node | {"failureLogEnabled": True, "showErrors": True, "showWarnings": False, "showLogs": False}


def _read(name: str, at: int, length: int, scan_s: float, style: Style) -> Node:
    node: Node = {"id": f"read-{name}-{at}", "type": "modbus-read", "z": "tab", "name": "", "topic": "", "server": f"client-{name}"}
    node |= {"unitid": 1, "dataType": "HoldingRegister", "adr": at, "quantity": length, "rate": round(scan_s * 1000), "rateUnit": "ms"}
    node |= {
        "showStatusActivities": style.status,
        "showErrors": True,
        "showWarnings": False,
        "logIOActivities": False,
        "delayOnStart": False,
    }
    node |= {"useIOFile": False, "ioFile": "", "useIOForPayload": False, "emptyMsgOnFail": False, "startDelayTime": ""}
    return node | {"wires": [[f"decode-{name}"], []]}


def _function(name: str, code: str) -> Node:
    node: Node = {"id": f"decode-{name}", "type": "function", "z": "tab", "func": code, "initialize": "", "finalize": "", "libs": []}
    return node | {"outputs": 1, "wires": [[f"out-{name}"]]}


def _out(name: str, style: Style) -> Node:
    topic = "" if style.split else f"nodered/{name}"
    node: Node = {"id": f"out-{name}", "type": "mqtt out", "z": "tab", "topic": topic, "qos": str(style.qos), "retain": "false"}
    return node | {"broker": "broker", "wires": []}
