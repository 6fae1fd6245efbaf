"""``holdfast demo``: a plant, a broker, the gateway and a consumer, with real parts, in one process (the broker in its own).

The gateway is the one that ``holdfast run`` starts, from a site document that is written to disk first. An outage kills
the broker and starts it again on the same port. At the end scanning stops, the journal drains, and the verdict compares
the gateway's ledger with what the consumer counted at the other end. The exit code is 0 only if nothing was lost,
nothing is missing, and that is known.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from rich.console import Console
from rich.live import Live

from gateway import app, config, links
from gateway.config.model import Site
from gateway.consume import ConsumeOptions, Consumer
from gateway.demo import broker as brokers
from gateway.demo import plant
from gateway.demo.physics import Plant
from gateway.demo.stage import GATEWAY, GROUP, LOOK_S, UPLINK, Stage, plot, wind_down
from gateway.demo.table import line, render
from gateway.demo.view import Outage, View, is_whole, report, summary
from gateway.tasks import cancel
from gateway.telemetry import logs
from protocols.clock import Clock, SystemClock

HOST_ID: Final = "demo-consumer"
UNWATCHED_S: Final = 30.0
"""How long it runs where nobody can press Ctrl-C."""
LINE_S: Final = 2.0


@dataclass(frozen=True)
class Wish:
    """What the command line asks for. Times in seconds; ``for_s`` 0 runs until Ctrl-C."""

    outage_s: float = 0.0
    for_s: float = 0.0
    as_json: bool = False
    keep: Path | None = None
    broker: str = ""
    """Name of the broker to use; empty takes the best that is installed."""


def document(ports: dict[str, int], broker: brokers.Broker) -> dict[str, Any]:  # Any: a document, as YAML has it
    """The site document of the demonstration."""
    return {
        "holdfast": 1,
        "gateway": {"group": GROUP, "name": GATEWAY},
        "journal": {"path": "./journal", "max_bytes": 256 * 1024**2},
        "connections": plant.connections(ports),
        "uplinks": [
            {
                "name": UPLINK,
                "type": "sparkplug",
                "host": broker.host,
                "port": broker.port,
                "protocol": broker.flavour.protocol,
                "keepalive_s": 5,
                "primary_host": HOST_ID,  # after an outage the gateway waits until the consumer listens again
                "acknowledge": "consumer",
            }
        ],
        "outage_budget_s": 3600.0,
    }


def site(folder: Path, ports: dict[str, int], broker: brokers.Broker) -> Site:
    """The document, written to ``folder/site.yaml`` and loaded from there as anybody's would be."""
    path = folder / "site.yaml"
    path.write_text(json.dumps(document(ports, broker), indent=1, ensure_ascii=False), encoding="utf-8")
    loaded, problems = config.load(path)
    if loaded is None:
        raise AssertionError(f"the demonstration's own document is wrong: {problems}")  # our bug, never the user's
    return loaded


@asynccontextmanager
async def consuming(broker: brokers.Broker, folder: Path, clock: Clock) -> AsyncIterator[Consumer]:
    """The consumer at the other end, subscribed before the gateway says its first word; it confirms what it has checked."""
    options = ConsumeOptions(
        group=GROUP,
        gateway=GATEWAY,
        host=broker.host,
        port=broker.port,
        protocol=broker.flavour.protocol,
        acknowledge=True,
        host_id=HOST_ID,
        from_beginning=True,
    )
    with (folder / "received.ndjson").open("w", encoding="utf-8") as received:
        consumer = Consumer(options, received, clock=clock)
        subscribed = asyncio.Event()

        async def session(up: links.Up) -> None:
            def both() -> None:
                up()
                subscribed.set()

            await consumer.session(both)

        status = links.Status("consumer", GATEWAY)
        task = asyncio.create_task(links.keep(session, status, clock=clock), name="consumer")
        try:
            try:
                await asyncio.wait_for(subscribed.wait(), brokers.START_S)
            except TimeoutError:
                raise brokers.NoBroker(f"{broker.flavour.name} does not serve the consumer: {status.trouble}") from None
            yield consumer
        finally:
            await cancel(task)


async def draw(stage: Stage, show: Callable[[View], None]) -> None:
    while True:
        show(stage.look())
        await stage.clock.sleep_until(stage.clock.monotonic() + LOOK_S)


@contextmanager
def screen(wish: Wish) -> Iterator[Callable[[View], None]]:
    """Where views go: a live table on a terminal; else a line now and then (on standard error where JSON is asked for)."""
    console = Console(stderr=wish.as_json)
    if console.is_terminal and not wish.as_json:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield lambda view: live.update(render(view, console.width, console.height), refresh=True)
        return
    last_s = -LINE_S

    def show(view: View) -> None:
        nonlocal last_s
        if view.elapsed_s - last_s >= LINE_S:
            last_s = view.elapsed_s
            console.print(line(view), highlight=False, soft_wrap=True)

    yield show


async def perform(wish: Wish, folder: Path, clock: Clock) -> tuple[View, Outage]:
    """The whole demonstration in ``folder``: its last view, and what became of the outage."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(plant.running(Plant(), clock=clock))
        broker = await stack.enter_async_context(brokers.running(folder, clock, brokers.choose(wish.broker)))
        consumer = await stack.enter_async_context(consuming(broker, folder, clock))
        started = site(folder, ports, broker)
        appliance = await stack.enter_async_context(app.running(started, base=folder, clock=clock))
        stage = Stage(appliance, broker, consumer, clock, clock.monotonic())
        with screen(wish) as show:
            drawing = asyncio.create_task(draw(stage, show), name="draw")
            try:
                await plot(stage, wish.outage_s, wish.for_s, stop)
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(number)  # a second Ctrl-C ends at once
                await wind_down(stage, started)
            finally:
                await cancel(drawing)
        return stage.look(), stage.outage


@contextmanager
def place(keep: Path | None) -> Iterator[Path]:
    """The folder of the run: a temporary one, or ``keep``, which stays."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise click.UsageError(f"{keep} is not empty: the verdict is about a journal from its first record on; name a new folder")
        yield keep


async def run(wish: Wish) -> int:
    """Perform and tell the end; the exit code."""
    with place(wish.keep) as folder, (folder / "gateway.log").open("a") as log:
        with redirect_stderr(log):
            logs.configure("info", "json")
        view, outage = await perform(wish, folder, SystemClock())
    if wish.as_json:
        sys.stdout.write(json.dumps(report(view, outage), indent=2) + "\n")
    else:
        Console(highlight=False, soft_wrap=True).print("\n".join(summary(view, outage)))
        if wish.keep:
            sys.stdout.write(f"kept in {wish.keep}: look with: holdfast journal stat {wish.keep}/site.yaml\n")
    return 0 if is_whole(view) else 1


@click.command("demo")
@click.option("--outage", type=click.FloatRange(0, 3600), default=0.0, metavar="S", help="Kill the broker for S seconds.")
@click.option("--for", "for_s", type=click.FloatRange(0, 86400), default=0.0, metavar="S", help="End after S seconds (and the outage).")
@click.option("--json", "as_json", is_flag=True, help="No table; one JSON report on standard output at the end.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep journal, site document and logs in DIR."
)
@click.option("--broker", type=click.Choice(["mosquitto", "amqtt"]), default=None, help="Which broker; else the best that is installed.")
def demo(outage: float, for_s: float, as_json: bool, keep: Path | None, broker: str | None) -> None:
    """Run a simulated plant, a local broker, the gateway and a consumer, and prove that nothing is lost."""
    if not for_s and (as_json or not sys.stdout.isatty()):
        for_s = UNWATCHED_S
    try:
        sys.exit(uvloop.run(run(Wish(outage, for_s, as_json, keep, broker or ""))))
    except (brokers.NoBroker, OSError) as error:
        raise click.ClickException(str(error)) from error
