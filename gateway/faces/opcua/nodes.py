"""The address space of a face: asyncua's standard nodes, and ours, which are made when they are looked at.

A node of ours is a name in the tree and nothing else: it costs no memory until somebody asks, building 65,000 takes no time, and a
folder of 5,000 children is a folder like any other. (asyncua keeps 20 KB for each node, and looks through all siblings to add one.)
The standard nodes are read once a process and shared; one that somebody changes or watches is copied first.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, overload

from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData, NodeManagementService
from asyncua.server.standard_address_space import standard_address_space
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from gateway.faces.opcua.numbers import far, named, standard, status
from gateway.faces.opcua.tree import ROOT, Folder, Leaf, Tree
from gateway.faces.opcua.units import UNECE, unit_id
from gateway.faces.opcua.values import TYPE_OF, Readings, data_value
from protocols.clock import Clock

INDEX: Final = 2
"""Of our namespace; 1 is the face's own (OPC 10000-5, 6.3.1)."""
_A = AttributeIds
_UNIT: Final = "unit:"
_IDS = ObjectIds
ANALOG_UNIT: Final = 17497
"""AnalogUnitType (OPC 10000-8, 5.3.2.5)."""


def standard_nodes() -> dict[ua.NodeId, NodeData]:
    """The nodes that every server has. Takes seconds; call it in a thread."""
    space = AddressSpace()
    fill: Any = standard_address_space.fill_address_space  # Any: it has no annotations
    fill(NodeManagementService(space))
    return space._nodes


def node_id(identity: str) -> ua.NodeId:
    return named(identity, INDEX)


class Nodes(AddressSpace):
    """Standard nodes and those of ``tree``."""

    def __init__(
        self,
        standard: dict[ua.NodeId, NodeData],
        tree: Tree,
        uri: str,
        readings: Readings,
        clock: Clock,
        *,
        writable: bool,
        period_ms: float,
    ) -> None:
        super().__init__()
        self.tree = tree
        self.readings = readings
        self.uri = uri
        self.writable = writable
        self.period_ms = period_ms
        self.clock = clock
        self._standard = standard

    def leaf(self, nodeid: ua.NodeId) -> Leaf | None:
        """The tag behind ``nodeid``."""
        return self.tree.leaves.get(nodeid.Identifier) if nodeid.NamespaceIndex == INDEX and isinstance(nodeid.Identifier, str) else None

    def get(self, nodeid: ua.NodeId) -> NodeData | None:
        if nodeid.NamespaceIndex == INDEX:
            return self._own(nodeid)
        return self._nodes.get(nodeid) or self._standard.get(nodeid)

    def __getitem__(self, nodeid: ua.NodeId) -> NodeData:
        found = self.get(nodeid)
        if found is None:
            raise KeyError(nodeid)
        return found

    def __contains__(self, nodeid: object) -> bool:
        return isinstance(nodeid, ua.NodeId) and self.get(nodeid) is not None

    def read_attribute_value(self, nodeid: ua.NodeId, attr: AttributeIds) -> ua.DataValue:
        node = self.get(nodeid)
        if node is None:
            return ua.DataValue(StatusCode=status(StatusCodes.BadNodeIdUnknown))
        held = node.attributes.get(attr)
        if held is None:
            return ua.DataValue(StatusCode=status(StatusCodes.BadAttributeIdInvalid))
        if held.value_callback is not None:
            return held.value_callback(nodeid, attr)
        return held.value if held.value is not None else ua.DataValue(StatusCode=status(StatusCodes.BadAttributeIdInvalid))

    async def write_attribute_value(self, nodeid: ua.NodeId, attr: AttributeIds, value: ua.DataValue) -> ua.StatusCode:
        self.copied(nodeid)
        return await super().write_attribute_value(nodeid, attr, value)

    def set_attribute_value_callback(
        self, nodeid: ua.NodeId, attr: AttributeIds, callback: Callable[[ua.NodeId, AttributeIds], ua.DataValue]
    ) -> ua.StatusCode:
        self.copied(nodeid)
        return super().set_attribute_value_callback(nodeid, attr, callback)

    def add_datachange_callback(self, nodeid: ua.NodeId, attr: AttributeIds, callback: Any) -> tuple[ua.StatusCode, int]:
        # Any: asyncua's own
        if nodeid.NamespaceIndex == INDEX:  # only values change, and they are watched in another way
            known = self.get(nodeid)
            code = StatusCodes.BadNodeIdUnknown if known is None else StatusCodes.BadAttributeIdInvalid
            return (ua.StatusCode(), 0) if known is not None and attr in known.attributes else (status(code), 0)
        self.copied(nodeid)
        return super().add_datachange_callback(nodeid, attr, callback)

    def copied(self, nodeid: ua.NodeId) -> NodeData | None:
        """A standard node as one of this face alone."""
        if nodeid not in self._nodes and nodeid in self._standard:
            self._nodes[nodeid] = copy.deepcopy(self._standard[nodeid])
        return self._nodes.get(nodeid)

    # ---- ours

    def _own(self, nodeid: ua.NodeId) -> NodeData | None:
        identity = nodeid.Identifier
        if not isinstance(identity, str):
            return None
        if identity in self.tree.leaves:
            return _node(nodeid, self._variable(self.tree.leaves[identity]), _LeafReferences(self, self.tree.leaves[identity]))
        if identity in self.tree.folders:
            return _node(nodeid, _object(self.tree.folders[identity]), _FolderReferences(self, self.tree.folders[identity]))
        leaf = self.tree.leaves.get(identity.removeprefix(_UNIT)) if identity.startswith(_UNIT) else None
        if leaf is None or not leaf.tag.unit:
            return None
        references = [type_of(_IDS.PropertyType), reference(_IDS.HasProperty, leaf.id, leaf.name, ua.NodeClass.Variable, forward=False)]
        return _node(nodeid, self._unit(leaf), references)

    def _variable(self, leaf: Leaf) -> dict[AttributeIds, AttributeValue]:
        tag = leaf.tag
        access = 0x03 if tag.writable and self.writable else 0x01  # CurrentRead, CurrentWrite (OPC 10000-3, 8.57)
        value = AttributeValue(ua.DataValue())
        value.value_callback = lambda nodeid, attr: self.value(leaf)
        return {
            **_names(leaf.name, ua.NodeClass.Variable, f"{leaf.device.name}/{tag.name}"),
            _A.Value: value,
            _A.DataType: _held(standard(TYPE_OF[tag.kind].value), ua.VariantType.NodeId),
            _A.ValueRank: _held(-1, ua.VariantType.Int32),
            _A.AccessLevel: _held(access, ua.VariantType.Byte),
            _A.UserAccessLevel: _held(access, ua.VariantType.Byte),
            _A.MinimumSamplingInterval: _held(self.period_ms, ua.VariantType.Double),
            _A.Historizing: _held(False, ua.VariantType.Boolean),
        }

    def value(self, leaf: Leaf) -> ua.DataValue:
        return data_value(leaf.tag.kind, self.readings.point(leaf.device, leaf.slot), self.clock.time_ns())

    def _unit(self, leaf: Leaf) -> dict[AttributeIds, AttributeValue]:
        number = unit_id(leaf.tag.unit)
        text = ua.LocalizedText(leaf.tag.unit)
        held = ua.EUInformation(NamespaceUri=UNECE if number >= 0 else self.uri, UnitId=number, DisplayName=text, Description=text)
        return {
            **_names("EngineeringUnits", ua.NodeClass.Variable, "", space=0),
            _A.Value: _held(held, ua.VariantType.ExtensionObject),
            _A.DataType: _held(standard(_IDS.EUInformation), ua.VariantType.NodeId),
            _A.ValueRank: _held(-1, ua.VariantType.Int32),
            _A.AccessLevel: _held(1, ua.VariantType.Byte),
            _A.UserAccessLevel: _held(1, ua.VariantType.Byte),
            _A.MinimumSamplingInterval: _held(0.0, ua.VariantType.Double),
            _A.Historizing: _held(False, ua.VariantType.Boolean),
        }

    def reference_to(self, identity: str, *, forward: bool = True) -> ua.ReferenceDescription:
        """An Organizes or HasComponent reference to a node of ours."""
        folder = self.tree.folders.get(identity)
        if folder is not None:
            return reference(_IDS.Organizes, identity, folder.name, ua.NodeClass.Object, forward=forward)
        leaf = self.tree.leaves[identity]
        return reference(_IDS.HasComponent, identity, leaf.name, ua.NodeClass.Variable, forward=forward, definition=_definition(leaf))


def _definition(leaf: Leaf) -> int:
    return ANALOG_UNIT if leaf.tag.unit and leaf.tag.kind.value[0] in "iuf" else int(_IDS.BaseDataVariableType)


def reference(
    kind: int, identity: str, name: str, node_class: ua.NodeClass, *, forward: bool, definition: int = int(_IDS.FolderType)
) -> ua.ReferenceDescription:
    return ua.ReferenceDescription(
        ReferenceTypeId=standard(kind),
        IsForward=forward,
        NodeId=far(identity, INDEX),
        BrowseName=ua.QualifiedName(name, INDEX),
        DisplayName=ua.LocalizedText(name),
        NodeClass=node_class,
        TypeDefinition=far(definition),
    )


def type_of(definition: int) -> ua.ReferenceDescription:
    names = {ANALOG_UNIT: "AnalogUnitType", _IDS.FolderType: "FolderType", _IDS.PropertyType: "PropertyType"}
    name = names.get(definition, "BaseDataVariableType")
    node_class = ua.NodeClass.ObjectType if definition == _IDS.FolderType else ua.NodeClass.VariableType
    return ua.ReferenceDescription(
        ReferenceTypeId=standard(_IDS.HasTypeDefinition),
        IsForward=True,
        NodeId=far(definition),
        BrowseName=ua.QualifiedName(name),
        DisplayName=ua.LocalizedText(name),
        NodeClass=node_class,
    )


def _node(nodeid: ua.NodeId, attributes: dict[AttributeIds, AttributeValue], references: Any) -> NodeData:
    # Any: a list for asyncua, which only walks through it
    node = NodeData(nodeid)
    node.attributes = {_A.NodeId: _held(nodeid, ua.VariantType.NodeId), **attributes}
    node.references = references
    return node


def _object(folder: Folder) -> dict[AttributeIds, AttributeValue]:
    return {**_names(folder.name, ua.NodeClass.Object, ""), _A.EventNotifier: _held(0, ua.VariantType.Byte)}


def _names(name: str, node_class: ua.NodeClass, description: str, space: int = INDEX) -> dict[AttributeIds, AttributeValue]:
    return {
        _A.NodeClass: _held(node_class, ua.VariantType.Int32),
        _A.BrowseName: _held(ua.QualifiedName(name, space), ua.VariantType.QualifiedName),
        _A.DisplayName: _held(ua.LocalizedText(name), ua.VariantType.LocalizedText),
        _A.Description: _held(ua.LocalizedText(description), ua.VariantType.LocalizedText),
        _A.WriteMask: _held(0, ua.VariantType.UInt32),
        _A.UserWriteMask: _held(0, ua.VariantType.UInt32),
    }


def _held(value: Any, kind: ua.VariantType) -> AttributeValue:  # Any: whatever the attribute holds
    return AttributeValue(ua.DataValue(ua.Variant(value, kind)))


class _References(Sequence[ua.ReferenceDescription]):
    """References that are made one by one, as they are looked at."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    @overload
    def __getitem__(self, at: int) -> ua.ReferenceDescription: ...
    @overload
    def __getitem__(self, at: slice) -> list[ua.ReferenceDescription]: ...
    def __getitem__(self, at: int | slice) -> ua.ReferenceDescription | list[ua.ReferenceDescription]:
        if isinstance(at, slice):
            return [self._one(each) for each in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        return self._one(at)

    @abstractmethod
    def _one(self, at: int) -> ua.ReferenceDescription: ...

    def __iter__(self) -> Iterator[ua.ReferenceDescription]:
        return (self._one(at) for at in range(len(self)))


class _FolderReferences(_References):
    """Its type, what it lies in, what lies in it."""

    def __init__(self, nodes: Nodes, folder: Folder) -> None:
        super().__init__(nodes)
        self._folder = folder

    def __len__(self) -> int:
        return 2 + len(self._folder.children)

    def _one(self, at: int) -> ua.ReferenceDescription:
        if at == 0:
            return type_of(_IDS.FolderType)
        if at > 1:
            return self._nodes.reference_to(self._folder.children[at - 2])
        if self._folder.id != ROOT:
            return self._nodes.reference_to(self._folder.parent, forward=False)
        return ua.ReferenceDescription(
            ReferenceTypeId=standard(_IDS.Organizes),
            IsForward=False,
            NodeId=far(_IDS.ObjectsFolder),
            BrowseName=ua.QualifiedName("Objects"),
            DisplayName=ua.LocalizedText("Objects"),
            NodeClass=ua.NodeClass.Object,
            TypeDefinition=far(_IDS.FolderType),
        )


class _LeafReferences(_References):
    """Its type, what it lies in, its unit."""

    def __init__(self, nodes: Nodes, leaf: Leaf) -> None:
        super().__init__(nodes)
        self._leaf = leaf

    def __len__(self) -> int:
        return 3 if self._leaf.tag.unit else 2

    def _one(self, at: int) -> ua.ReferenceDescription:
        if at == 0:
            return type_of(_definition(self._leaf))
        if at == 1:
            found = self._nodes.reference_to(self._leaf.parent, forward=False)
            found.ReferenceTypeId = standard(_IDS.HasComponent)
            return found
        found = reference(
            _IDS.HasProperty,
            _UNIT + self._leaf.id,
            "EngineeringUnits",
            ua.NodeClass.Variable,
            forward=True,
            definition=int(_IDS.PropertyType),
        )
        found.BrowseName = ua.QualifiedName("EngineeringUnits", 0)
        return found
