"""Writes the generated pages under docs/reference, or says which of them are not what the code gives.

``python -m tools.reference`` writes, with ``--check`` it only compares and fails where something differs. The pages of
the configuration come from ``gateway.config``; the commands and the metrics are told here, from the objects themselves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
from prometheus_client.core import Metric

from gateway.api.app import unserved
from gateway.api.document import document
from gateway.api.reference import api_page
from gateway.cli import main as holdfast
from gateway.config.__main__ import differing, write
from gateway.config.__main__ import pages as configuration_pages
from gateway.config.comparison import comparison
from gateway.identity import table
from gateway.identity.principal import Permission
from gateway.journal import Ledger
from gateway.links import Status
from gateway.telemetry import metrics
from protocols.model import ScanStats
from protocols.templates.library import own, sources
from tools import roles

FOLDER: Final = Path(__file__).parents[1] / "docs/reference"
MADE: Final = "<!-- Made from the code by `make docs`; a change here is lost. -->\n"


def commands() -> str:
    """Every command with its help, as ``--help`` prints it at 100 characters."""
    parts = ["# Commands\n", MADE]
    for path, command in _walk("holdfast", holdfast):
        context = click.Context(command, info_name=path, terminal_width=100, help_option_names=["-h", "--help"])
        parts.append(f"## {path}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if inner := command.get_command(context, name):
                yield from _walk(f"{path} {name}", inner)


def metric_table() -> str:
    """Every metric with its type, labels and meaning."""
    status, scans = Status("uplink", "example"), {"example": ScanStats(errors={"example": 1})}
    status.counters.errors["example"] = status.counters.dropped["example"] = 1
    ledger = Ledger(lanes={}, readers={}, bytes=0, max_bytes=0, free_bytes=0, trouble="")
    rows = [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} | {_labels(family)} | {family.documentation} |"
        for family in metrics.render(metrics.snapshot([status], scans, ledger))
    ]
    head = ["# Metrics", "", MADE, "In the Prometheus text format, by the API and where `telemetry.metrics_port` is set.", ""]
    return "\n".join([*head, "| name | type | labels | meaning |", "|---|---|---|---|", *rows, ""])


def _labels(family: Metric) -> str:
    return ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))


def operations(api: dict[str, Any]) -> Iterator[table.Operation]:  # Any: JSON
    """Every operation of the OpenAPI document, with what it needs."""
    for path, methods in api["paths"].items():
        for method, said in methods.items():
            needs = said.get("x-holdfast-permission")
            permission = None if needs is None else Permission(needs)
            yield table.Operation(said["operationId"], method.upper(), path, permission, said["x-holdfast-reach"])


def template_table() -> str:
    """Every device template with what it describes, how well it is checked, and where its facts come from."""
    known, rows = sources(), []
    for one in own().find():
        facts = "; ".join(known[key].title if key != "manual" else where for key, where in one.sources.items())
        tags = str(len(one.tags)) if one.tags else "found in the device"
        rows.append(f"| `{one.name}` | {one.manufacturer} {', '.join(one.models)} | {one.kind} | {tags} | {one.checked} | {facts} |")
    head = ["# Device templates", "", MADE]
    head += [f"{len(rows)} products. `holdfast template show NAME` prints one whole; [use one](../how-to/use-a-template.md),"]
    head += [
        "[write one](../how-to/write-a-template.md). The licences of the sources are in [NOTICE](../../protocols/templates/NOTICE.md).",
        "",
    ]
    return "\n".join([*head, "| name | product | kind | tags | checked | facts from |", "|---|---|---|---|---|---|", *rows, ""])


def pages() -> dict[str, str]:
    """File name to text."""
    api = document(unserved())
    return {
        "ansible.md": roles.page(MADE),
        "api.md": api_page(api, MADE),
        "openapi.json": json.dumps(api, indent=2, ensure_ascii=False) + "\n",
        **configuration_pages(),
        "commands.md": commands(),
        "metrics.md": metric_table(),
        "permissions.md": table.page(operations(api), MADE),
        "protocols.md": comparison(),
        "templates.md": template_table(),
    }


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        old = differing(FOLDER, pages())
        sys.stderr.writelines(f"docs/reference/{name} is not what the code gives: run make docs and commit it\n" for name in old)
        return 1 if old else 0
    write(FOLDER, pages())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
