"""The committed pages are what the Structs give, and the command that writes them says so when they are not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from gateway.config import check, load
from gateway.config.__main__ import differing, main, pages
from gateway.config.document import parse_yaml
from gateway.config.drivers import own
from gateway.config.model import Site
from gateway.config.options import options_of
from gateway.config.schema import all_shapes, schema

ROOT = Path(__file__).parents[3]
PLANT = Path(__file__).with_name("plant.yaml")


def test_the_committed_pages_are_up_to_date() -> None:
    assert differing(ROOT / "docs/reference", pages()) == []


def test_the_reference_page_has_a_row_for_every_key_of_every_struct() -> None:
    page = pages()["configuration.md"]
    drivers = own()
    for shape in all_shapes([Site, *(drivers[one].options for one in drivers)]):
        for option in options_of(shape):
            assert f"| `{option.key}` |" in page
            assert option.meaning.replace("<", "&lt;").replace("|", "\\|") in page


def test_the_documents_example_is_right_for_our_own_drivers() -> None:
    site, problems = load(PLANT, drivers=own())
    assert problems == []
    assert site is not None
    assert [one for one in check(site, drivers=own()) if one.severity == "error"] == []
    document, _ = parse_yaml(PLANT.read_bytes())
    assert document is not None
    assert list(jsonschema.Draft202012Validator(schema(drivers=own())).iter_errors(document.value)) == []


def test_a_name_that_two_tags_have_is_said_once() -> None:
    tag = "{name: t, at: 'coil:1', kind: bool}"
    text = (
        "holdfast: 1\ngateway: {group: g, name: n}\nconnections:\n"
        f"  - {{name: a, type: modbus-tcp, host: h, devices: [{{name: d, tags: [{tag}, {tag}]}}]}}\n"
    )
    site, problems = load(text.encode(), drivers=own())
    assert problems == []
    assert site is not None
    names = [one.path for one in check(site, drivers=own()) if one.path.endswith("name")]
    assert names == ["connections[0].devices[0].tags[1].name"]


def test_the_committed_sample_is_right_as_it_stands_and_switched_on() -> None:
    text = pages()["sample.yaml"]
    for shape in (text, re.sub(r"(?m)^( *)#(?=[a-z])", r"\1", text)):
        site, problems = load(shape.encode(), drivers=own())
        assert problems == []
        assert site is not None
        assert [one for one in check(site, drivers=own()) if one.severity == "error"] == []


def test_pages_are_written_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "reference"
    assert main([str(folder), "--check"]) == 1
    assert main([str(folder)]) == 0
    assert main([str(folder), "--check"]) == 0
    (folder / "sample.yaml").write_text("changed")
    capsys.readouterr()
    assert main([str(folder), "--check"]) == 1
    assert "sample.yaml is not what the Structs give: run make docs" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--chek"], ["--check"]])
def test_wrong_use_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "use:" in capsys.readouterr().err


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "gateway.config", str(tmp_path)], check=True, timeout=60)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["configuration.md", "sample.yaml", "site.schema.json"]
