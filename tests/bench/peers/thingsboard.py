"""thingsboard-gateway: one process, its configuration written anew for each load; see ``README.md`` for why it looks as it does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.loads import Load
from tests.bench.measure import ROOT
from tests.bench.peers.broker import TOKEN
from tests.bench.peers.process import MissingPeer, running

HOME: Final = ROOT / "build" / "bench" / "peers" / "tb"
PROGRAM: Final = HOME / "bin" / "thingsboard-gateway"
FULL_SPEED_S: Final = 0.2
"""The period with 100 devices of 100 tags at which it delivers most; shorter ones make it slower."""
MEMORY: Final[Mapping[str, Any]] = {"type": "memory", "read_records_count": 1000, "max_records_count": 100000}
"""Its default, and the fastest: what it holds ends with the process."""
SQLITE: Final[Mapping[str, Any]] = {"type": "sqlite", "max_read_records_count": 1000, "writing_batch_size": 1000, "messages_ttl_in_days": 7}
"""What it holds outlives the process; commits are not synchronised with the disk (journal mode WAL, synchronous NORMAL)."""
MOST: Final = 124
"""Registers of one request: whole float32 pairs, as many as Modbus allows."""


@asynccontextmanager
async def thingsboard(
    load: Load, ports: Sequence[int], broker_port: int, folder: Path, storage: Mapping[str, Any] = MEMORY
) -> AsyncIterator[int]:
    """The process id of a thingsboard-gateway that reads ``load`` over ``ports``."""
    if told := missing():
        raise MissingPeer(told)
    for name, document in {
        "tb_gateway.json": gateway(broker_port, storage),
        "modbus.json": connector(load, ports),
        "logs.json": LOGS,
        "connected_devices.json": {},
    }.items():
        (folder / name).write_text(json.dumps(document))
    (folder / "logs").mkdir()
    async with running((str(PROGRAM),), folder, {"TB_GW_CONFIG_DIR": str(folder)}) as pid:
        yield pid


@asynccontextmanager
async def thingsboard_sqlite(load: Load, ports: Sequence[int], broker_port: int, folder: Path) -> AsyncIterator[int]:
    """The same with its storage on disk, for information."""
    (folder / "data").mkdir()
    async with thingsboard(load, ports, broker_port, folder, {**SQLITE, "data_file_path": f"{folder / 'data'}/"}) as pid:
        yield pid


def missing() -> str | None:
    """How to install it, where it is not."""
    return None if PROGRAM.exists() else f"thingsboard-gateway is not installed in {HOME}: make bench-peers"


def version() -> str:
    done = subprocess.run((str(HOME / "bin" / "python"), "-c", VERSION), capture_output=True, text=True, check=True)
    return done.stdout.strip()


VERSION: Final = "from importlib.metadata import version as v; print(v('thingsboard-gateway'), 'pymodbus', v('pymodbus'))"


def gateway(broker_port: int, storage: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {
        "thingsboard": {
            "host": "127.0.0.1",
            "port": broker_port,
            "remoteShell": False,
            "remoteConfiguration": False,
            "latencyDebugMode": False,
            "statistics": {"enable": False},
            "deviceFiltering": {"enable": False},
            "handleDeviceRenaming": False,
            "syncDevicesSharedAttributesOnConnect": False,
            "maxPayloadSizeBytes": 65536,
            "minPackSendDelayMS": 50,
            "minPackSizeToSend": 500,
            "checkConnectorsConfigurationInSeconds": 60,
            "security": {"type": "accessToken", "accessToken": TOKEN},
            "qos": 1,
            "reportStrategy": {"type": "DISABLED"},
            "checkingDeviceActivity": {"checkDeviceInactivity": False},
        },
        "storage": dict(storage),
        "grpc": {"enabled": False},
        "connectors": [{"type": "modbus", "name": "bench", "configuration": "modbus.json"}],
    }


def connector(load: Load, ports: Sequence[int]) -> dict[str, Any]:  # Any: JSON
    """Ranges of addresses, so that a device takes two requests and not one for each tag."""
    values = {
        "tag": "v${address}",
        "type": "32float",
        "functionCode": 3,
        "objectsCount": 2,
        "address": f"0-{2 * load.tags - 1}",
        "maxRegistersPerRequest": MOST,
    }
    period = load.scan_s if load.is_paced else FULL_SPEED_S
    slaves = [_slave(f"device-{at}", port, period, values) for at, port in enumerate(ports)]
    return {"name": "bench", "logLevel": "ERROR", "master": {"slaves": slaves}}


def _slave(name: str, port: int, scan_s: float, tag: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {
        "host": "127.0.0.1",
        "port": port,
        "type": "tcp",
        "method": "socket",
        "unitId": 1,
        "deviceName": name,
        "deviceType": "default",
        "timeout": 2,
        "byteOrder": "BIG",
        "wordOrder": "BIG",
        "retries": 0,
        "pollPeriod": round(scan_s * 1000),
        "connectAttemptTimeMs": 500,
        "connectAttemptCount": 5,
        "waitAfterFailedAttemptsMs": 30000,
        "attributes": [],
        "timeseries": [tag],
        "attributeUpdates": [],
        "rpc": [],
    }


LOGS: Final = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "level": 0, "stream": "ext://sys.stdout"}},
    "loggers": {
        name: {"handlers": ["console"], "level": "WARNING", "propagate": False}
        for name in ("database", "service", "connector", "converter", "tb_connection", "storage", "extension")
    },
    "root": {"level": "ERROR", "handlers": ["console"]},
}
