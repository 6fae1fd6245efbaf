"""What judges the whole API: a plant with two tenants' devices, and one fair request for each operation of the OpenAPI document."""

from __future__ import annotations

import copy
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.api.app import unserved
from gateway.api.document import document, operations
from tests.gateway.api.conftest import Running, gateway, meters, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers

Json = dict[str, Any]  # Any: JSON
MADE: Final[Json] = document(unserved())
THEIRS: Final = ("meter-1", "meter-3", "cellar")
"""What the tenant, who sees meter-2 alone, must never hear of."""
PARTS: Final = {"device": "meter-1", "connection": "hall", "tag": "setpoint", "folder": "eastron", "product": "sdm630", "number": "1"}
"""What fills the path of a request; any other part is a name that nothing has."""
NOBODY: Final = "nobody-has-this"


@dataclass(frozen=True)
class Op:
    """One operation, and a fair request for it."""

    id: str
    method: str
    path: str
    said: Json = field(repr=False)

    @property
    def permission(self) -> str:
        return str(self.said.get("x-holdfast-permission", ""))

    @property
    def reach(self) -> str:
        return str(self.said["x-holdfast-reach"])

    @property
    def parts(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    def request(self, **parts: str) -> Json:
        """What httpx takes; ``parts`` go before PARTS."""
        filled = re.sub(r"{(\w+)}", lambda part: parts.get(part[1], PARTS.get(part[1], NOBODY)), self.path)
        query = {
            one["name"]: _fair(one["schema"]) for one in self.said.get("parameters", []) if one["in"] == "query" and one.get("required")
        }
        made: Json = {"method": self.method.upper(), "url": filled, "params": query}
        content = self.said.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            made["json"] = copy.deepcopy(content["application/json"]["example"])
        elif content:
            made |= {"content": b"holdfast: 1\n", "headers": {"Content-Type": next(iter(content))}}
        return made


def all_operations() -> Iterator[Op]:
    for path, method, said in operations(MADE):
        yield Op(said["operationId"], method, path, said)


def _fair(schema: Json) -> Any:  # Any: JSON
    for known in ("examples", "enum"):
        if schema.get(known):
            return schema[known][0]
    return {"integer": schema.get("minimum", 1), "number": 1.0, "boolean": False, "array": ["setpoint"]}.get(
        schema.get("type", ""), "setpoint"
    )


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def judged(folder: Path, **more: Any) -> AsyncIterator[Running]:  # Any: JSON
    """A gateway with three meters in two rooms; its tenant sees meter-2."""
    async with LibmodbusServer(units=[1, 2, 3]) as server:
        for unit in (1, 2, 3):
            await server.set(unit, "holding", 0, *registers("f", 230.5))
            await server.set(unit, "holding", 10, 7)
        rooms = [meters(server.port, 1, 2), {**meters(server.port, 3), "name": "cellar"}]
        async with gateway(site_of(server, port(), connections=rooms, **more), folder) as one:
            latest = one.appliance.latest
            await until("the meters are read", lambda: all(_read(latest, name) for name in ("meter-1", "meter-2", "meter-3")))
            one.meters = server  # type: ignore[attr-defined]  # for whoever looks whether something was written
            yield one


def _read(latest: Any, name: str) -> bool:  # Any: a Latest
    device = latest.device(name)
    return device is not None and all(not batch.quality.any() for batch in latest.batches(device))
