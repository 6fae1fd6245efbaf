"""History over the API: a whole gateway reads two meters, and is asked what they said."""

from __future__ import annotations

import csv
import io
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no types
import pytest
import pytest_asyncio

from gateway.identity.principal import Permission, Role
from gateway.journal import Lane
from protocols.model import Batch, Device, Kind, Quality, Tag
from tests.gateway.api.conftest import TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECOND_NS: Final = 1_000_000_000
BEGAN_NS: Final = 1_760_000_400 * SECOND_NS
PRESS: Final = Device(
    "hall",
    "press 1.a",
    (Tag(name="force/x", kind=Kind.FLOAT64, unit="kN"), Tag(name="=1+2", kind=Kind.STRING), Tag(name="n", kind=Kind.INT64)),
)
METER_2: Final = "/api/v1/devices/meter-2/history"
PRESS_PATH: Final = "/api/v1/devices/press 1.a/history"
SPAN: Final = {"from": str(BEGAN_NS), "to": str(BEGAN_NS + 600 * SECOND_NS)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _pressed(one: Running) -> None:
    """Ten minutes of a press that is not configured any more, a value a second; the fifth minute is bad."""
    for second in range(600):
        at = np.array([BEGAN_NS + second * SECOND_NS], dtype=np.int64)
        quality = np.array([Quality.BAD_TIMEOUT if 240 <= second < 300 else Quality.GOOD], dtype=np.uint32)
        value = np.array([0.0 if quality[0] else float(second)])
        one.appliance.journal.offer(Batch(PRESS, np.array([0], dtype=np.uint32), value, quality, at))
    text = np.array(["=cmd|'/c calc'!A1", 'say "hi"\nthere, you'], dtype=object)
    times = np.array([BEGAN_NS, BEGAN_NS + SECOND_NS], dtype=np.int64)
    await one.appliance.journal.append(Batch(PRESS, np.array([1, 1], dtype=np.uint32), text, np.zeros(2, dtype=np.uint32), times))
    whole = np.array([-(2**53) - 1, 5], dtype=np.int64)
    await one.appliance.journal.append(Batch(PRESS, np.array([2, 2], dtype=np.uint32), whole, np.zeros(2, dtype=np.uint32), times))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One gateway for all of them: nobody changes anything."""
    async with LibmodbusServer(units=[1, 2]) as server:
        for unit in (1, 2):
            await server.set(unit, "holding", 0, *registers("f", 230.5))
            await server.set(unit, "holding", 10, 7)
        async with gateway(site_of(server, _free_port()), tmp_path_factory.mktemp("plant")) as one:
            await until("both meters are read", lambda: one.appliance.journal.head(Lane.TELEMETRY) > 4)
            await _pressed(one)
            yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def viewer(plant: Running) -> httpx.AsyncClient:
    return await plant.as_role(Role.VIEWER)


async def test_what_was_read_comes_back_page_by_page_with_its_quality(viewer: httpx.AsyncClient) -> None:
    pages: list[dict[str, Any]] = []  # Any: JSON
    cursor = None
    while not pages or cursor is not None:
        said = await viewer.get(PRESS_PATH, params={"tag": "force/x", "limit": 250, **SPAN, **({"cursor": cursor} if cursor else {})})
        assert said.status_code == 200, said.text
        pages.append(said.json())
        cursor = pages[-1]["next"]
    items = [item for page in pages for item in page["items"]]
    assert [len(page["items"]) for page in pages] == [250, 250, 100]
    assert [item["time_ns"] for item in items] == [BEGAN_NS + second * SECOND_NS for second in range(600)]
    assert [item["value"] for item in items] == [None if 240 <= second < 300 else second for second in range(600)]
    assert {item["quality"] for item in items} == {0, int(Quality.BAD_TIMEOUT)}
    assert len({(item["epoch"], item["seq"]) for item in items}) == 600
    assert pages[0]["unit"] == "kN"


async def test_integers_keep_every_digit_and_texts_every_letter(viewer: httpx.AsyncClient) -> None:
    numbers = (await viewer.get(PRESS_PATH, params={"tag": "n", **SPAN})).json()
    assert [item["value"] for item in numbers["items"]] == [-(2**53) - 1, 5]
    texts = (await viewer.get(PRESS_PATH, params={"tag": "=1+2", **SPAN})).json()
    assert texts["items"][1]["value"] == 'say "hi"\nthere, you'


async def test_buckets_leave_out_what_is_bad_and_say_how_much_was_good(viewer: httpx.AsyncClient) -> None:
    said = (await viewer.get(f"{PRESS_PATH}/buckets", params={"tag": ["force/x", "n"], "bucket_s": 120, **SPAN})).json()
    force = said["series"][0]
    assert force["start_ns"] == [BEGAN_NS + at * SECOND_NS for at in range(0, 600, 120)]
    assert force["count"] == [120, 120, 60, 120, 120]
    assert force["bad"] == [0, 0, 60, 0, 0]
    assert force["good_share"] == [1, 1, 0.5, 1, 1]
    assert (force["min"][2], force["max"][2], force["mean"][2]) == (300, 359, 329.5)
    assert (force["first"][0], force["last"][0], force["avg"][0]) == (0, 119, pytest.approx(59.5))
    assert said["series"][1]["min"][0] == -(2**53)  # rounded to a double here, and only here
    assert not said["catching_up"]


async def test_a_line_has_no_more_points_than_asked_keeps_its_ends_and_its_gaps(viewer: httpx.AsyncClient) -> None:
    said = (await viewer.get(f"{PRESS_PATH}/line", params={"tag": "force/x", "points": 40, **SPAN})).json()
    line = said["series"][0]
    assert 20 <= len(line["value"]) <= 40
    assert (line["value"][0], line["value"][-1]) == (0, 599)
    assert len(line["breaks"]) == 1
    at = line["breaks"][0]
    assert (line["value"][at - 1], line["value"][at]) == (239, 300)


async def test_what_comes_now_is_in_the_answer_at_once(plant: Running, viewer: httpx.AsyncClient) -> None:
    said = (await viewer.get(METER_2, params={"tag": "voltage"})).json()
    assert said["items"][-1]["value"] == 230.5
    body = {"series": [{"device": "meter-1", "tag": "voltage"}, {"device": "meter-2", "tag": "setpoint"}], "bucket_s": 3600}
    buckets = (await viewer.post("/api/v1/history/buckets", json=body)).json()
    assert [(one["device"], one["last"][-1]) for one in buckets["series"]] == [("meter-1", 230.5), ("meter-2", 7)]
    lines = (await viewer.post("/api/v1/history/line", json={"series": body["series"], "points": 10})).json()
    assert [one["value"][0] for one in lines["series"]] == [230.5, 7]


async def test_rfc_3339_and_nanoseconds_say_the_same(viewer: httpx.AsyncClient) -> None:
    told = {"from": "2025-10-09T09:00:00Z", "to": "2025-10-09T11:10:00.000000000+02:00"}
    found = [(await viewer.get(f"{PRESS_PATH}/buckets", params={"tag": "force/x", **span})).json()["series"] for span in (told, SPAN)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        (PRESS_PATH, {"tag": "no such tag"}, 404),
        (PRESS_PATH, {}, 400),
        (PRESS_PATH, {"tag": "n", "from": "yesterday"}, 400),
        (PRESS_PATH, {"tag": "n", "from": "5", "to": "5"}, 400),
        (PRESS_PATH, {"tag": "n", "to": "9" * 30}, 400),
        (PRESS_PATH, {"tag": "n", "cursor": "eA"}, 400),
        (PRESS_PATH, {"tag": "n", "cursor": "W10"}, 400),
        (PRESS_PATH, {"tag": "n", "limit": "0"}, 400),
        (f"{PRESS_PATH}/buckets", {"tag": "n", "bucket_s": "1", "from": "0"}, 413),
        (f"{PRESS_PATH}/buckets", {"tag": "n", "bucket_s": "0"}, 400),
        (f"{PRESS_PATH}/line", {"tag": "=1+2", **SPAN}, 400),
        (f"{PRESS_PATH}/line", {"tag": "n", "points": "50000"}, 413),
        (f"{PRESS_PATH}/line", {"tag": [f"t{at}" for at in range(51)]}, 413),
        (f"{PRESS_PATH}/export", {"tag": "n", "format": "xlsx"}, 400),
        ("/api/v1/devices/no such device/history", {"tag": "n"}, 404),
    ],
)
async def test_a_question_that_cannot_be_is_refused_with_advice(
    viewer: httpx.AsyncClient,
    path: str,
    params: dict[str, Any],
    status: int,  # Any: what httpx takes
) -> None:
    said = await viewer.get(path, params=params)
    assert said.status_code == status, said.text
    assert said.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("tag", ["' OR 1=1 --", "n'; DROP TABLE stretch; --", "%", "*", "\u0000", 'n" UNION SELECT body FROM source --'])
async def test_names_are_names_and_nothing_else(viewer: httpx.AsyncClient, tag: str) -> None:
    """N19: what is asked for is compared with names, and never becomes part of a query."""
    assert (await viewer.get(PRESS_PATH, params={"tag": tag, **SPAN})).status_code == 404
    assert len((await viewer.get(PRESS_PATH, params={"tag": "n", **SPAN})).json()["items"]) == 2


async def test_a_tenant_reads_its_own_devices_and_knows_of_no_other(plant: Running, viewer: httpx.AsyncClient) -> None:
    builder = await plant.as_role(Role.VIEWER, TENANT)
    assert (await builder.get(METER_2, params={"tag": "voltage"})).status_code == 200
    foreign = [{"device": name, "tag": "voltage"} for name in ("meter-1", "nowhere")]
    for name in ("meter-1", "nowhere", "press 1.a"):
        for end in ("", "/buckets", "/line", "/export"):
            assert (await builder.get(f"/api/v1/devices/{name}/history{end}", params={"tag": "voltage"})).status_code == 404
    for kind in ("buckets", "line"):
        for one in foreign:
            body = {"series": [{"device": "meter-2", "tag": "voltage"}, one]}
            assert (await builder.post(f"/api/v1/history/{kind}", json=body)).status_code == 404
    narrow = await plant.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.SEE_STATUS}))
    assert (await narrow.get(METER_2, params={"tag": "voltage"})).status_code == 403
    assert (await plant.client().get(METER_2, params={"tag": "voltage"})).status_code == 401


async def test_csv_is_read_back_by_the_csv_module_and_holds_no_formula(viewer: httpx.AsyncClient) -> None:
    """N18. Numbers stay numbers, also negative ones."""
    said = await viewer.get(f"{PRESS_PATH}/export", params={"tag": ["n", "=1+2", "force/x"], **SPAN})
    assert said.headers["content-type"].startswith("text/csv")
    assert 'filename="history.csv"' in said.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(said.text, newline="")))
    assert len(rows) == 604
    assert [row["value"] for row in rows[:4]] == [str(-(2**53) - 1), "5", "'=cmd|'/c calc'!A1", 'say "hi"\nthere, you']
    assert rows[2]["tag"] == "'=1+2"
    assert rows[0]["time"] == "2025-10-09T09:00:00.000000000Z"
    assert not [
        cell for row in rows for name, cell in row.items() if name in ("tag", "device", "unit") and cell[:1] in ("=", "+", "-", "@")
    ]


async def test_ndjson_is_chosen_by_accept(viewer: httpx.AsyncClient) -> None:
    said = await viewer.get(
        f"{PRESS_PATH}/export", params={"tag": "force/x", **SPAN}, headers={"Accept": "application/x-ndjson, text/csv;q=0.5"}
    )
    lines = [json.loads(line) for line in said.text.splitlines()]
    assert len(lines) == 600
    assert (lines[250]["value"], lines[250]["quality"], lines[1]["device"]) == (None, int(Quality.BAD_TIMEOUT), "press 1.a")


async def test_arrow_and_parquet_are_read_back_by_pyarrow(viewer: httpx.AsyncClient) -> None:
    params = {"tag": "force/x", **SPAN}
    stream = await viewer.get(f"{PRESS_PATH}/export", params={**params, "format": "arrow"})
    table = pa.ipc.open_stream(stream.content).read_all()
    file = await viewer.get(f"{PRESS_PATH}/export", params={**params, "format": "parquet"})
    same = pq.read_table(io.BytesIO(file.content))
    for each in (table, same):
        assert each.num_rows == 600
        assert each.column("value").null_count == 60
        assert each.column("value").to_pylist()[599] == 599.0
        assert each.column("time").cast(pa.int64()).to_pylist()[0] == BEGAN_NS
    mixed = await viewer.get(f"{PRESS_PATH}/export", params={"tag": ["n", "=1+2"], **SPAN, "format": "parquet"})
    assert pq.read_table(io.BytesIO(mixed.content)).column("value").to_pylist()[0] == str(-(2**53) - 1)
