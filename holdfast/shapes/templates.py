"""Device templates: devices described as data, to be used in a site document."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta


class TemplateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One product, in a line."""

    name: Annotated[str, Meta(description="Folder and product.", examples=["eastron/sdm630"])]
    manufacturer: Annotated[str, Meta(examples=["Eastron"])]
    models: Annotated[list[str], Meta(examples=[["SDM630-Modbus"]])]
    kind: Annotated[str, Meta(examples=["energy meter"])]
    description: Annotated[str, Meta(examples=["Three-phase meter."])]
    tags: Annotated[int, Meta(description="0 where they are found in the device.", examples=[40])]
    checked: Annotated[str, Meta(description="How well its facts are proven.", examples=["two sources"])]


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """One product, whole: what a device is made of."""

    name: Annotated[str, Meta(description="Folder and product.", examples=["eastron/sdm630"])]
    manufacturer: Annotated[str, Meta(examples=["Eastron"])]
    models: Annotated[list[str], Meta(examples=[["SDM630-Modbus"]])]
    kind: Annotated[str, Meta(examples=["energy meter"])]
    description: Annotated[str, Meta(examples=["Three-phase meter."])]
    checked: Annotated[str, Meta(description="How well its facts are proven.", examples=["two sources"])]
    connection: Annotated[
        dict[str, Any],  # Any: hints differ by protocol
        Meta(description="How the device is reached as it leaves the factory.", examples=[{"protocols": ["modbus-rtu"]}]),
    ]
    questions: Annotated[
        dict[str, Any],  # Any: a question's default is of its type
        Meta(description="What only somebody at the device knows, by key.", examples=[{}]),
    ]
    tags: Annotated[
        list[dict[str, Any]],  # Any: the driver's own options
        Meta(description="As a site document has them.", examples=[[{"name": "voltage-l1", "kind": "float32", "at": "input:0"}]]),
    ]
    sources: Annotated[dict[str, str], Meta(description="Where its facts come from.", examples=[{"manual": "Protocol V1.0"}])]
