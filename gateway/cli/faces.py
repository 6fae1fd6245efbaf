"""``holdfast register-map``: what a Modbus face shows, as documentation for those who read it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gateway.cli.common import SITE, WRONG, fail, loaded
from gateway.config.drivers import installed
from gateway.config.faces import ModbusFace
from gateway.config.register_map import documentation, made


@click.command("register-map")
@SITE
@click.argument("face")
@click.option("--pin", is_flag=True, help="Print the map as registers for the site document, so that it no longer changes with the tags.")
def register_map(site: Path, face: str, pin: bool) -> None:
    """Print the registers of the Modbus face FACE in SITE: a table, Markdown."""
    document = loaded(site)
    faces = [one for one in document.faces if isinstance(one, ModbusFace)]
    options = next((one for one in faces if one.name == face), None)
    if options is None:
        names = ", ".join(one.name for one in faces) or "none"
        fail(f"no Modbus face is called {face!r} in {site}; there is: {names}", WRONG)
    drivers = installed()
    devices = [device for one in document.connections for device in drivers[one.__struct_config__.tag].devices(one)]
    if pin:
        registers = options.registers or tuple(made(devices))
        click.echo(msgspec.yaml.encode({"registers": [_plain(each) for each in registers]}).decode(), nl=False)
    else:
        click.echo(documentation(options, devices), nl=False)


def _plain(register: msgspec.Struct) -> dict[str, object]:
    """What differs from the defaults."""
    given = {field.name: getattr(register, field.name) for field in msgspec.structs.fields(register)}
    return {name: value for name, value in given.items() if value not in (None, "value", 1.0, 0)}
