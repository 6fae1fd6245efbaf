"""What an OPC UA face shows, as names: gateway, connections, devices, folders and tags, with node ids that stay. Pure.

A tag's node id is ``device/tag``; a device's is its name. What is made for order's sake has an id with a colon, which no name of a
device has: ``gateway:``, ``connection:NAME``, ``folder:DEVICE/PATH``, ``unit:DEVICE/TAG``. Slashes in a tag's name make folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from protocols.model import Device, Tag

ROOT: Final = "gateway:"


@dataclass(slots=True)
class Folder:
    """Gateway, connection, device or group of tags."""

    id: str
    name: str
    parent: str
    children: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tag."""

    id: str
    name: str
    """The last part of the tag's name."""
    parent: str
    device: Device
    slot: int

    @property
    def tag(self) -> Tag:
        return self.device.tags[self.slot]


@dataclass(slots=True)
class Tree:
    """Every folder and every tag, by node id."""

    folders: dict[str, Folder] = field(default_factory=dict)
    leaves: dict[str, Leaf] = field(default_factory=dict)


def namespace(group: str, gateway: str) -> str:
    """The URI under which the node ids of this gateway are unique."""
    return f"urn:holdfast:{quote(group, safe='')}:{quote(gateway, safe='')}"


def application(group: str, gateway: str, face: str) -> str:
    """Who a face says it is."""
    return f"{namespace(group, gateway)}:{quote(face, safe='')}"


def grow(tree: Tree, name: str, devices: Iterable[Device]) -> Iterator[None]:
    """Put ``devices`` of the gateway ``name`` into ``tree``; yields after every tag, so that others can work in between."""
    tree.folders[ROOT] = Folder(ROOT, name, "")
    for device in devices:
        connection = _folder(tree, f"connection:{device.connection}", device.connection, ROOT)
        top = _folder(tree, device.name, device.name, connection.id)
        for slot, tag in enumerate(device.tags):
            *path, last = [part for part in tag.name.split("/") if part] or [tag.name]
            parent, way = top, device.name
            for part in path:
                way = f"{way}/{part}"
                parent = _folder(tree, f"folder:{way}", part, parent.id)
            leaf = Leaf(f"{device.name}/{tag.name}", last, parent.id, device, slot)
            tree.leaves[leaf.id] = leaf
            parent.children.append(leaf.id)
            yield


def _folder(tree: Tree, identity: str, name: str, parent: str) -> Folder:
    found = tree.folders.get(identity)
    if found is None:
        found = tree.folders[identity] = Folder(identity, name, parent)
        tree.folders[parent].children.append(identity)
    return found
