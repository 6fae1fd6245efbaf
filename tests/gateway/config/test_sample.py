"""The sample is a right document, as it stands and with every option switched on, and leaves no option out."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway.config import check, load, sample
from gateway.config.drivers import Drivers
from gateway.config.model import Site
from gateway.config.options import options_of, scalar, spoken
from gateway.config.schema import all_shapes


def switched_on(text: str) -> str:
    """``text`` with the # removed where an option follows it at once."""
    return re.sub(r"(?m)^( *)#(?=[a-z])", r"\1", text)


def test_the_sample_loads_without_a_problem(drivers: Drivers) -> None:
    site, problems = load(sample(drivers=drivers).encode(), drivers=drivers)
    assert problems == []
    assert site is not None
    assert check(site, drivers=drivers) == []
    assert {one.__struct_config__.tag for one in site.connections} == set(drivers)


def test_the_sample_loads_with_every_option_switched_on(drivers: Drivers) -> None:
    text = sample(drivers=drivers)
    site, problems = load(switched_on(text).encode(), drivers=drivers)
    assert switched_on(text).count("#") < text.count("#")
    assert problems == []
    assert site is not None
    assert [one for one in check(site, drivers=drivers) if one.severity == "error"] == []


def test_what_is_switched_off_is_the_default(drivers: Drivers) -> None:
    """Except what has no default worth showing: there an example stands."""
    plain, _ = load(sample(drivers=drivers).encode(), drivers=drivers)
    full, _ = load(switched_on(sample(drivers=drivers)).encode(), drivers=drivers)
    assert plain is not None
    assert full is not None
    parts: dict[str, Any] = {"connections": (), "uplinks": (), "api": None}  # Any: parts that have options without a default
    assert msgspec.structs.replace(plain, **parts) == msgspec.structs.replace(full, **parts)
    assert plain.journal == type(plain.journal)()
    assert plain.connections[0].devices == full.connections[0].devices


def test_every_option_stands_in_the_sample_with_its_meaning(drivers: Drivers) -> None:
    text = sample(drivers=drivers)
    words = " ".join(text.replace("#", " ").split())
    for shape in all_shapes([Site, *(drivers[one].options for one in drivers)]):
        for option in options_of(shape):
            if shape.__name__ not in ("FromFile", "FromEnv", "FromCredential"):
                assert re.search(rf"\b{option.key}:", text) or f" {option.key}" in words, option.key
                assert option.meaning.rstrip(".") in words, option.key


def test_without_drivers_there_is_still_a_sample() -> None:
    site, problems = load(sample(drivers={}).encode(), drivers={})
    assert problems == []
    assert isinstance(site, Site)


def test_plain_values_read_the_same_for_old_and_new_yaml() -> None:
    shown = [scalar(one) for one in ("on", "5", "a b", "./data", 1.0, 0.05, True, None, {"a": [1, "x"]}, 2**40, "1.3")]
    assert shown == ['"on"', '"5"', '"a b"', "./data", "1", "0.05", "true", "null", "{a: [1, x]}", "1099511627776", '"1.3"']


def test_large_values_are_also_said_in_words() -> None:
    assert spoken(2592000.0, "seconds") == "2592000 (30 days)"
    assert spoken(2**31, "bytes") == "2147483648 (2 GiB)"
    assert spoken(1.0, "seconds") == "1"
