"""Site documents, whatever they are: a Site or problems with texts that any terminal can show; in bounded time and memory.

Small mutations of one small document, as YAML and as JSON, go through the real drivers' options and checks and through the
look at files. Documents that are hostile by design (aliases of aliases, nesting, long lines, huge numbers) are made one by one.
``tests/gateway/config/test_fuzz.py`` does the same with whole plants and with values in wrong places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.config import check_files, judge
from gateway.config.document import MAX_BYTES
from protocols.contract import Problem
from protocols.secret import FromCredential, FromEnv, FromFile, Secret, SecretMissing
from tests.faults import figures
from tests.fuzz.campaign import MOST_GROWTH, Watch, frames, peak_bytes, run, seed
from tests.fuzz.mutate import JsonMutator, Mutator

YAML: Final = b"""holdfast: 1
gateway: {group: plant, name: gw}
connections:
  - name: line
    type: modbus-tcp
    host: 192.0.2.1
    devices:
      - {name: boiler, unit_id: 1, scan_s: 1, tags: [{name: p, at: "holding:0", kind: float32, scale: 0.1}]}
uplinks:
  - {name: cloud, type: sparkplug, host: broker, password: {from: file, path: secret}, username: u}
"""
SITE: Final[dict[str, Any]] = {  # Any: JSON
    "holdfast": 1,
    "gateway": {"group": "plant", "name": "gw"},
    "journal": {"path": "./journal", "max_bytes": 1000000000},
    "connections": [
        {
            "name": "serial",
            "type": "modbus-rtu",
            "serial_port": "/dev/ttyS0",
            "devices": [{"name": "meter", "unit_id": 2, "tags": [{"name": "w", "at": 40001, "kind": "bool"}]}],
        }
    ],
    "uplinks": [
        {"name": "plain", "type": "mqtt", "host": "b", "tls": {"ca_file": "ca.pem"}, "password": {"from": "env", "name": "P"}},
    ],
}
YAML_PIECES: Final = tuple(
    piece.encode()
    for piece in (
        "\n",
        "\t",
        ": ",
        "- ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "? ",
        "---\n",
        "| \n",
        "> \n",
        "'",
        '"',
        "#",
        "\u2028",
        "\0",
        "{",
        "]",
    )
)
SEEN: Final = 5_000


class DocumentMutator(Mutator):
    """Bytes, and pieces that mean something in YAML."""

    def make(self, frame: bytes | None = None) -> bytes:
        content = bytearray(super().make(frame))
        while self.dice.random() < 0.5:
            at = int(self.dice.random() * (len(content) + 1))
            content[at:at] = self.dice.choice(YAML_PIECES)
        return bytes(content)


def survives(raw: bytes, base: Path) -> None:
    site, problems = judge(raw)
    assert site is not None or any(problem.severity == "error" for problem in problems)
    if site is not None:
        problems = [*problems, *check_files(site, base)]
    speak(problems)


def speak(problems: Iterable[Problem]) -> None:
    for problem in problems:
        text = f"{problem.path} {problem.message} {problem.advice}"
        text.encode()
        assert problem.message
        assert not any(character < " " or "\x7f" <= character < "\xa0" for character in text), repr(text[:SEEN])


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_document_is_a_site_or_has_problems(form: str, tmp_path: Path) -> None:
    number, count = seed(), frames(10_000, 400_000)
    corpus = [YAML] if form == "yaml" else [json.dumps(SITE).encode()]
    mutator = DocumentMutator(number, corpus) if form == "yaml" else JsonMutator(number, corpus)
    run(f"config-{form}", mutator.make, lambda raw: survives(raw, tmp_path), seed=number, count=count)


def _aliases(depth: int) -> bytes:
    """Each line holds the one before it nine times."""
    lines = ["a0: &a0 [x]", *(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, depth))]
    return "\n".join(lines).encode()


HOSTILE: Final[dict[str, Callable[[], bytes]]] = {
    "aliases": lambda: _aliases(30),
    "merges": lambda: b"a: &a {k0: 1}\n" + b"\n".join(b"m%d: {<<: [*a, *a, *a], k%d: 1}" % (at, at) for at in range(20_000)),
    "deep-flow": lambda: b"[" * 1_000_000,
    "deep-map": lambda: b"{a: " * 200_000,
    "deep-json": lambda: b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "deep-block": lambda: b"\n".join(b" " * at + b"a:" for at in range(2_000)),
    "long-line": lambda: b"gateway: " + b"x" * 10_000_000,
    "long-key": lambda: b"x" * 10_000_000 + b": 1",
    "long-quoted": lambda: b'gateway: {group: "' + b"x" * 10_000_000 + b'"}',
    "long-number": lambda: b"holdfast: " + b"9" * 5_000_000,
    "long-json-number": lambda: b'{"holdfast":' + b"9" * 5_000_000 + b"}",
    "float-digits": lambda: b'{"holdfast":1.' + b"9" * 5_000_000 + b"}",
    "nan": lambda: b'{"holdfast":NaN,"gateway":Infinity}',
    "many-keys": lambda: b"\n".join(b"k%d: 1" % at for at in range(100_000)),
    "same-key": lambda: b"k: 1\n" * 100_000,
    "many-tags": lambda: b"connections:\n- {type: modbus-tcp, devices: [{tags: [" + b"{}, " * 100_000 + b"]}]}",
    "many-anchors": lambda: b"\n".join(b"k%d: &a%d 1" % (at, at) for at in range(50_000)),
    "quotes": lambda: b"'" * 3_000_000,
    "spaces": lambda: b" " * 3_000_000 + b"a: 1",
    "questions": lambda: b"? " * 500_000,
    "dashes": lambda: b"- " * 500_000,
    "nul": lambda: b"a: 1\n" + bytes(1_000_000),
    "utf-16": lambda: YAML.decode().encode("utf-16"),
    "bom": lambda: b"\xef\xbb\xbf" * 3 + YAML,
    "surrogates": lambda: b'{"gateway": "' + b"\\ud800" * 500_000 + b'"}',
    "too-large": lambda: b"a: 1\n" * (MAX_BYTES // 5 + 10),
    "tags": lambda: b"a: " + b"!!python/object/apply:os.system [ls]",
    "duplicate-names": lambda: json.dumps({**SITE, "connections": SITE["connections"] * 1000}).encode(),
}
MEMORY_OF: Final = {"many-keys", "many-tags", "many-anchors", "merges", "same-key", "duplicate-names", "aliases"}
"""Documents that hold very many values by right: a large site takes memory, which is given back."""


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_document_has_problems_within_seconds(name: str) -> None:
    raw = HOSTILE[name]()
    watch = Watch()
    watch.begin()
    with watch.armed(), watch.bounded():
        site, problems = judge(raw)
    growth = peak_bytes() - watch.base
    figures.record(f"fuzz/config-hostile-{name}", bytes=len(raw), seconds=round(watch.slowest_s, 3), growth=growth)
    assert site is None
    assert problems
    speak(problems)
    assert growth <= (400_000_000 if name in MEMORY_OF else MOST_GROWTH + 8 * len(raw)), f"{growth} bytes for a document of {len(raw)}"


def test_a_reference_to_a_secret_gives_it_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the path, the name and the content of the file are; and nothing of the content stands in the error."""
    number = seed()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    mutator = Mutator(number, [b"secret", b"../x", b"P", b"/dev/null", b"a" * 300, b"caf\xc3\xa9"])
    file = tmp_path / "kept"

    def judge(content: bytes) -> None:
        name = content.decode(errors="replace")
        told: list[str] = []
        references: list[Secret] = [FromEnv(name), FromCredential(name.replace("/", "_"))]
        if not name.startswith(("/dev", "/proc")):
            references.append(FromFile(str(tmp_path / "none" / name)))
        if mutator.dice.random() < 0.2:
            file.write_bytes(b"canary" + content)
            references.append(FromFile(str(file)))
        for reference in references:
            try:
                reference.read()
            except SecretMissing as missing:
                told.append(str(missing))
        assert not any("canary" in text for text in told)

    run("secret-references", mutator.make, judge, seed=number, count=frames(10_000, 200_000))
