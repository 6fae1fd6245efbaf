"""Whether the files that a site names are there and may be read by whoever asks. The only check that looks at the machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path as FilePath

import msgspec

from gateway.config.check import error, in_order, structs, warning
from gateway.config.explain import fields_of
from gateway.config.model import Site
from gateway.config.places import resolve
from protocols.contract import Problem
from protocols.secret import FromEnv, FromFile, SecretMissing


def check_files(site: Site, base: FilePath) -> list[Problem]:
    """What ``site`` names and this machine does not have. ``base`` is the folder of the site document.

    Missing files are errors; what the service sees and this shell may not (environment, serial ports) are warnings.
    """
    return in_order(problem for path, struct in structs(site) for problem in _struct_files(path, struct, base))


def _struct_files(path: tuple[str | int, ...], struct: msgspec.Struct, base: FilePath) -> Iterator[Problem]:
    if isinstance(struct, FromFile):
        yield from _file((*path, "path"), struct.path, base, private=True)
    elif isinstance(struct, FromEnv):
        yield from _environment((*path, "name"), struct)
    for one in fields_of(type(struct)):
        named = getattr(struct, one.name)
        if one.name.endswith("_file") and isinstance(named, str) and named:
            yield from _file((*path, one.encode_name), named, base, private=one.name == "key_file")
        if one.name == "serial_port" and isinstance(named, str) and isinstance(_state(resolve(named, base)), str):
            advice = "plug the adapter in; its steady name is under /dev/serial/by-id/"
            yield warning((*path, one.encode_name), f"{named} is not there", advice)


def _file(path: tuple[str | int, ...], named: str, base: FilePath, *, private: bool) -> Iterator[Problem]:
    file = resolve(named, base)
    state = _state(file)
    if isinstance(state, str):
        yield error(path, f"{file} cannot be read: {state}", "put the file there, mend the path, or let the service's user read it")
    elif not stat.S_ISREG(state.st_mode):
        yield error(path, f"{file} is not a file", "name the file itself")
    elif private and state.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        yield warning(path, f"everybody on this machine may read {file}", f"chmod 640 {file}")


def _state(file: FilePath) -> os.stat_result | str:
    """What the file system says of a file that may be read, or why not. Opens nothing: a pipe would block."""
    try:
        state = file.stat()
        return state if os.access(file, os.R_OK) else "permission denied"
    except (OSError, ValueError) as problem:
        return getattr(problem, "strerror", None) or str(problem)


def _environment(path: tuple[str | int, ...], secret: FromEnv) -> Iterator[Problem]:
    try:
        secret.read()
    except SecretMissing:
        yield warning(path, "this environment variable is not set here", "set it in the service's environment")
