"""``holdfast openapi``: the description of the local API, without a gateway that runs."""

from __future__ import annotations

import json

import click

from gateway.api.app import unserved
from gateway.api.document import document


@click.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of the local API. No gateway needs to run."""
    click.echo(json.dumps(document(unserved()), indent=2, ensure_ascii=False))
