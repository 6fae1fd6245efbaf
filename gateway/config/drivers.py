"""Which drivers are installed: name to :class:`protocols.contract.Driver`, through the entry points ``holdfast.drivers``.

A driver is imported when it is first asked for, so that a site pays only for the protocols that it uses. One that cannot
be imported is :class:`Broken`, with the reason: a problem of that connection, not of the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import msgspec

from protocols.contract import Driver

GROUP: Final = "holdfast.drivers"
Drivers = Mapping[str, Driver]
"""By the ``type`` that users write. Asking for one may raise KeyError (there is none) or Broken."""

_IMPORT_FAILURES: Final = (ImportError, AttributeError, SyntaxError, NameError, TypeError, ValueError, LookupError, OSError, RuntimeError)
"""What running somebody else's module may raise."""


class Broken(Exception):
    """A driver is installed but cannot be used. The text says why and what to do."""


class Installed(Mapping[str, Driver]):
    """The drivers of all installed distributions."""

    def __init__(self, package: str = "") -> None:
        """``package``: only drivers of this package; empty for all."""
        entries = [entry for entry in entry_points(group=GROUP) if entry.value.startswith(package)]
        self._entries: dict[str, EntryPoint] = {entry.name: entry for entry in entries}
        self._loaded: dict[str, Driver] = {}

    def __getitem__(self, name: str) -> Driver:
        if name not in self._loaded:
            self._loaded[name] = _load(self._entries[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


@cache
def installed() -> Drivers:
    """The installed drivers; looked up once a process."""
    return Installed()


def own() -> Drivers:
    """Holdfast's own drivers."""
    return Installed("protocols.")


def usable(drivers: Drivers) -> dict[str, Driver]:
    """Those of ``drivers`` that can be imported."""
    found: dict[str, Driver] = {}
    for name in drivers:
        try:
            found[name] = drivers[name]
        except Broken:
            continue
    return found


def _load(entry: EntryPoint) -> Driver:
    try:
        driver: Any = entry.load()  # Any: foreign code until it has been looked at
    except _IMPORT_FAILURES as error:
        raise Broken(
            f"driver {entry.name} ({entry.value}) cannot be imported: {type(error).__name__}: {error}: {_remedy(entry, error)}"
        ) from error
    return _judge(entry, driver)


def _remedy(entry: EntryPoint, error: Exception) -> str:
    """What to do about a driver that cannot be imported. Which extra it needs stands in its entry point: ``module:DRIVER [extra]``."""
    if isinstance(error, ModuleNotFoundError) and entry.extras and entry.dist is not None:
        return f"install what it needs: pip install '{entry.dist.name}[{','.join(entry.extras)}]'"
    return "install what it needs or remove it"


def _judge(entry: EntryPoint, driver: Any) -> Driver:  # Any: as above
    options = getattr(driver, "options", None)
    if not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        raise Broken(f"driver {entry.name} ({entry.value}) has no options Struct: it was written for another version; update it")
    config = options.__struct_config__
    if config.tag_field != "type" or config.tag != entry.name:
        raise Broken(f"driver {entry.name} ({entry.value}): its options are tagged {config.tag_field}: {config.tag}; update the driver")
    try:
        msgspec.convert({}, options)
    except msgspec.ValidationError:
        pass  # it can refuse, so it can judge
    except TypeError as error:
        raise Broken(f"driver {entry.name} ({entry.value}): msgspec cannot use its options: {error}: update the driver") from error
    found: Driver = driver
    return found
