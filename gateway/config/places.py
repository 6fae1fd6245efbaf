"""Paths in a site document start from the document's folder, wherever the service stands."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import msgspec

from gateway.config.explain import fields_of
from gateway.config.model import Site
from protocols.secret import FromFile


def resolve(path: str, base: FilePath) -> FilePath:
    """A path written in a site document, as a path on this machine. ``base`` is the document's folder."""
    return base / FilePath(path)


def state_folder(site: Site, base: FilePath) -> FilePath:
    """Where what the gateway knows besides readings lies: ``state_path``, or ``state`` in the journal's folder."""
    return resolve(site.state_path, base) if site.state_path else resolve(site.journal.path, base) / "state"


def rooted(site: Site, base: FilePath) -> Site:
    """``site`` with its paths absolute. Relative ones start from ``base``, the folder of the site document. (The journal's own
    path is resolved by who opens it.)"""
    found: Site = _rooted(site, base.absolute())
    return found


def _rooted(value: Any, base: FilePath) -> Any:  # Any: plain values, Structs and tuples of both, and the same again
    if isinstance(value, tuple):
        inner = tuple(_rooted(each, base) for each in value)
        return value if all(new is old for new, old in zip(inner, value, strict=True)) else inner
    if not isinstance(value, msgspec.Struct):
        return value
    changed: dict[str, Any] = {}  # Any: as above
    for one in fields_of(type(value)):
        old = getattr(value, one.name)
        is_path = isinstance(old, str) and old and (_names_a_place(one.name) or (isinstance(value, FromFile) and one.name == "path"))
        new = str(resolve(old, base)) if is_path else _rooted(old, base)
        if new is not old and new != old:
            changed[one.name] = new
    return msgspec.structs.replace(value, **changed) if changed else value


def _names_a_place(key: str) -> bool:
    return key.endswith(("_file", "folder"))
