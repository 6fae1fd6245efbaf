"""The JSON Schema agrees with the loader, and says what forms and editors need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.config import load, sample, schema
from gateway.config.document import parse_yaml
from gateway.config.drivers import Drivers
from gateway.config.model import Site
from gateway.config.options import options_of
from gateway.config.schema import all_shapes

PLANT = Path(__file__).with_name("plant.yaml")


def value_of(text: str) -> Any:  # Any: a document's plain values
    document, problems = parse_yaml(text.encode())
    assert document is not None
    assert not problems
    return document.value


@pytest.fixture(scope="module")
def validator(drivers: Drivers) -> jsonschema.Draft202012Validator:
    whole = schema(drivers=drivers)
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole)


def test_the_documents_example_and_the_sample_are_valid(validator: jsonschema.Draft202012Validator, drivers: Drivers) -> None:
    for text in (PLANT.read_text(), sample(drivers=drivers)):
        assert list(validator.iter_errors(value_of(text))) == []


WRONG = [
    ("port: 502", "port: 70000"),
    ("port: 502", "port: '502'"),
    ("port: 502", "prot: 502"),
    ("type: modbus-tcp", "type: modbus_tcp"),
    ("type: modbus-tcp\n", "kind: modbus-tcp\n"),
    ("holdfast: 1", "holdfast: 2"),
    ("name: gw-01", "name: gw/01"),
    ("kind: bool", "kind: boolean"),
    ("scan_s: 1.0", "scan_s: 0"),
    ("type: sparkplug", "type: spark"),
    ("when_full: drop-oldest", "when_full: stop"),
    ("primary_host: scada-1", "primary_host: a/b"),
    ("port: 1883", "password: hunter2"),
    ("port: 1883", "password: {from: file}"),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_schema_and_loader_refuse_the_same(right: str, wrong: str, validator: jsonschema.Draft202012Validator, drivers: Drivers) -> None:
    text = PLANT.read_text()
    assert right in text
    text = text.replace(right, wrong)
    assert not validator.is_valid(value_of(text))
    assert load(text.encode(), drivers=drivers)[0] is None


def test_every_key_has_a_description_and_secrets_and_units_are_marked(drivers: Drivers) -> None:
    whole = schema(drivers=drivers)
    definitions = whole["$defs"]
    for shape in all_shapes([Site, *(drivers[one].options for one in drivers)]):
        properties = (whole if shape is Site else definitions[shape.__name__])["properties"]
        for option in options_of(shape):
            assert properties[option.key].get("description"), f"{shape.__name__}.{option.key}"
    assert definitions["SparkplugUplink"]["properties"]["password"]["x-secret"] is True
    assert definitions["Tls"]["properties"]["key_password"]["x-secret"] is True
    assert "x-secret" not in definitions["Tls"]["properties"]["key_file"]
    assert definitions["TcpOptions"]["properties"]["timeout_s"]["x-unit"] == "seconds"
    assert definitions["JournalOptions"]["properties"]["commit_window_ms"]["x-unit"] == "milliseconds"


def test_connections_are_chosen_by_their_type(drivers: Drivers) -> None:
    items = schema(drivers=drivers)["properties"]["connections"]["items"]
    assert items["discriminator"]["mapping"] == {"modbus-rtu": "#/$defs/RtuOptions", "modbus-tcp": "#/$defs/TcpOptions"}
    assert {one["$ref"] for one in items["anyOf"]} == set(items["discriminator"]["mapping"].values())


def test_without_drivers_no_connection_is_valid() -> None:
    validator = jsonschema.Draft202012Validator(schema(drivers={}))
    assert validator.is_valid(value_of("{holdfast: 1, gateway: {group: g, name: n}, connections: []}"))
    assert not validator.is_valid(value_of("{holdfast: 1, gateway: {group: g, name: n}, connections: [{name: x}]}"))


def test_the_schema_is_the_same_each_time(drivers: Drivers) -> None:
    assert json.dumps(schema(drivers=drivers)) == json.dumps(schema(drivers=drivers))
