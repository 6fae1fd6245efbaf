"""Tags from a file into a site document: what each mode does, and that nothing else of the document changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import config
from gateway.config import importing
from gateway.config.importing import MODES, Mode, Unfit
from protocols.contract import Offer
from protocols.model import Kind

SITE = """\
# The boiler house. Changes are agreed with the shift.
holdfast: 1
gateway: {group: plant-7, name: gw-01}
connections:
  - name: server          # the PLC
    type: opcua
    endpoint: opc.tcp://192.0.2.1:4840
    security: {policy: none}
    devices:
      - name: boiler
        tags:
          # pressures
          - {name: steam, at: "nsu=http://x;s=steam", kind: float32, unit: bar}   # calibrated in March
          - name: level
            at: "nsu=http://x;s=level"
            kind: uint16

          - {name: old, at: "nsu=http://x;s=old", kind: bool}
      - name: pump        # the feed pump
        scan_s: 5.0
      - name: fan
        tags: []
  - name: other
    type: modbus-tcp
    host: 192.0.2.2
"""
FILE = b"""name,at,kind,unit,writable,value,description
steam,nsu=http://x;s=steam2,float32,bar,,1.5,the steam
level,nsu=http://x;s=level,uint16,m,,3,
fresh,nsu=http://x;s=fresh > [2],int16,,true,'=1+1,"a, b"
odd,nsu=http://x;s=odd,,,,,no kind: it cannot be a tag
"""


def plan(mode: Mode, device: str = "boiler", site: str = SITE, file: bytes = FILE) -> importing.Import:
    return importing.plan(site.encode(), "server", device, importing.read_rows(file, "tags.csv"), mode)


def tags(text: str, device: str = "boiler") -> dict[str, object]:
    document, problems = config.load(text.encode())
    assert document is not None, problems
    found = next(one for one in document.connections[0].devices if one.name == device)
    return {tag.name: (tag.at, tag.unit, tag.writable) for tag in found.tags}


@pytest.mark.parametrize(
    ("mode", "created", "changed", "removed", "kept"),
    [
        ("create", ["fresh"], [], [], ["steam", "level", "old"]),
        ("overwrite", ["fresh"], ["steam", "level"], [], ["old"]),
        ("delete", ["fresh"], ["steam", "level"], ["old"], []),
        ("merge-safe", ["fresh"], ["level"], [], ["steam", "old"]),
    ],
)
def test_each_mode_does_what_it_says(mode: str, created: list[str], changed: list[str], removed: list[str], kept: list[str]) -> None:
    found = plan(MODES[mode])
    assert (found.created, found.changed, found.removed, found.kept) == (created, changed, removed, kept)
    after = tags(found.text)
    assert set(after) == {"steam", "level", "old", "fresh"} - set(removed)
    assert after["fresh"] == ("nsu=http://x;s=fresh > [2]", "", True)
    assert after["steam"] == ("nsu=http://x;s=steam2" if "steam" in changed else "nsu=http://x;s=steam", "bar", False)
    assert after["level"] == ("nsu=http://x;s=level", "m" if "level" in changed else "", False)


@pytest.mark.parametrize("mode", MODES.values())
def test_all_other_lines_stay_as_they_are(mode: Mode) -> None:
    """Comments, blank lines, order and spelling: only lines of tags that change are different."""
    found = plan(mode)
    gone = [line for line in SITE.splitlines() if line not in found.text.splitlines()]
    allowed = ("steam", "level", "kind: uint16", "old")
    assert [line for line in gone if not any(word in line for word in allowed)] == []
    for comment in ("# The boiler house. Changes are agreed", "# the PLC", "# pressures", "# the feed pump"):
        assert comment in found.text


@pytest.mark.parametrize("device", ["pump", "fan"])
def test_a_device_without_tags_gets_a_list(device: str) -> None:
    found = plan(Mode.CREATE, device)
    assert set(tags(found.text, device)) == {"steam", "level", "fresh"}
    assert set(tags(found.text)) == {"steam", "level", "old"}


def test_a_second_import_changes_nothing() -> None:
    once = plan(Mode.OVERWRITE)
    twice = plan(Mode.OVERWRITE, site=once.text)
    assert twice.text == once.text
    assert twice.patch("site.yaml") == ""


def test_the_patch_makes_the_document(tmp_path: Path) -> None:
    found = plan(Mode.CREATE)
    lines = found.patch("site.yaml").splitlines()
    assert [line for line in lines if line.startswith("+") and not line.startswith("+++")] == [
        "+          - {name: fresh, at: 'nsu=http://x;s=fresh > [2]', kind: int16, writable: true}"
    ]
    site = tmp_path / "site.yaml"
    site.write_text(SITE)
    site.chmod(0o640)
    importing.put(site, found.text)
    assert (site.read_text(), site.stat().st_mode & 0o777) == (found.text, 0o640)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"a,b\n1,2\n", "must name the columns"),
        (b"name,at,kind\n,x,bool\n", "no name"),
        (b"name,at,kind\na,x,bool\na,y,bool\n", "two tags are called 'a'"),
        (b"name,at,kind\n\xff,x,bool\n", "UTF-8"),
        (b'name,at,kind\n"a,x,bool\n', "cannot be read as CSV"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_advice(file: bytes, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        importing.read_rows(file, "tags.csv")


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (SITE.replace("name: server", "name: servant"), "no connection is called 'server'"),
        (SITE.replace("name: boiler", "name: oven"), "no device of server is called 'boiler'"),
        (SITE.replace("        tags:\n          # pressures", "        tags: [{name: a, at: i=1, kind: bool}]\n        x:"), "brackets"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_document_that_cannot_be_changed_line_by_line_is_left_alone(site: str, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        plan(Mode.CREATE, site=site)


def test_yaml_is_read_as_well() -> None:
    rows = importing.read_rows(b"tags:\n  - {name: a, at: i=1, kind: bool}\n", "tags.yaml")
    assert rows == [{"name": "a", "at": "i=1", "kind": "bool"}]


def test_what_a_server_says_runs_in_no_spreadsheet_and_is_a_name() -> None:
    assert importing.harmless("=HYPERLINK(1)\x1b[2J\n") == "'=HYPERLINK(1) [2J "
    assert importing.harmless("-12.5") == "-12.5"
    assert importing.tag_name(Offer(path="a/b+c#\x07", at="i=1", kind=Kind.BOOL)) == "a/b_c__"
