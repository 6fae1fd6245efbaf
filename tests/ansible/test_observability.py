"""What watches a fleet is asked of metrics that exist: every name in alert rules and dashboards is one that something tells.

The rules are also played against series (``observability_rules.yml``, promtool), here where promtool is installed and, on real
hosts, in the Molecule scenario ``observability``. Whether a role's arguments fit their defaults is looked at here too.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
ROLE: Final = ROOT / "ansible/roles/observability"
RULES: Final = sorted((ROLE / "files/rules").glob("*.yml"))
DASHBOARDS: Final = sorted((ROLE / "files/dashboards").glob("*.json"))
CASES: Final = Path(__file__).with_name("observability_rules.yml")
OTHERS: Final = frozenset(
    {
        *("up", "ALERTS"),  # Prometheus itself
        *("node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", "node_filesystem_readonly"),
        *("node_filesystem_avail_bytes", "node_filesystem_size_bytes", "node_filesystem_files", "node_filesystem_files_free"),
    }
)
"""What others tell; the Molecule scenario looks whether they do."""
WORDS: Final = frozenset(
    {
        *(
            "abs",
            "avg",
            "clamp_min",
            "offset",
            "count",
            "deriv",
            "histogram_quantile",
            "increase",
            "max",
            "predict_linear",
            "rate",
            "resets",
            "sum",
            "time",
            "vector",
        ),
        *("and", "bool", "by", "group_left", "on", "or", "unless", "without"),
    }
)
"""PromQL's own words, as far as they are used; a new one is to be written here."""
UNITS: Final = frozenset({"none", "short", "bytes", "s", "percentunit", "cps", "reqps", "bool_yes_no"})
"""Of Grafana's units those that fit our figures; it draws a wrong one as text, without a word."""


def told() -> frozenset[str]:
    """What a gateway tells, by the reference page; a histogram as the three series that it is."""
    rows = re.findall(r"^\| `(holdfast_\w+)` \| (\w+) \|", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    names = {name for name, kind in rows if kind != "histogram"}
    names |= {f"{name}_{part}" for name, kind in rows if kind == "histogram" for part in ("bucket", "sum", "count")}
    names |= set(re.findall(r"# TYPE (\w+) ", (ROLE / "files/tell-release").read_text()))
    return frozenset(names)


def rules() -> list[dict[str, Any]]:  # Any: YAML
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def recorded() -> frozenset[str]:
    return frozenset(rule["record"] for rule in rules() if "record" in rule)


def asked(expression: str) -> frozenset[str]:
    """The series that an expression of PromQL names."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left)\s*\([^)]*\)", "", bare)
    return frozenset(re.findall(r"(?<![\w:])[A-Za-z_][\w:]*", bare)) - WORDS


def dashboard(path: Path) -> dict[str, Any]:  # Any: JSON
    board: dict[str, Any] = json.loads(path.read_text())
    return board


def expressions() -> list[tuple[str, str]]:
    """Every expression, and where it stands."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for path in DASHBOARDS:
        for panel in dashboard(path)["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


def test_the_names_of_an_expression_are_found() -> None:
    """Functions, labels, ranges and selectors are no series."""
    text = 'sum without (reason) (rate(a_total{x=~"b_total|c", y="}"}[5m])) or on (z) group_left () d:e:sum * 0 > 1'
    assert asked(text) == {"a_total", "d:e:sum"}


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_everything_asked_for_is_told(where: str, expression: str) -> None:
    """Each name in a rule or a dashboard is in the reference, is recorded, or is one that we know of others."""
    assert asked(expression), f"{where} asks for nothing"
    unknown = asked(expression) - told() - recorded() - OTHERS
    assert not unknown, f"{where}: nobody tells {', '.join(sorted(unknown))}; see docs/reference/metrics.md"


def test_a_wrong_name_is_seen() -> None:
    """A metric that was renamed leaves no rule behind that can never fire."""
    assert asked("increase(holdfast_journal_lost_total[6h]) > 0") - told() - recorded() - OTHERS == {"holdfast_journal_lost_total"}


def test_everything_recorded_is_used() -> None:
    used = frozenset[str]().union(*(asked(expression) for _, expression in expressions()))
    assert recorded() <= used, f"recorded for nobody: {sorted(recorded() - used)}"


def test_what_others_tell_is_used() -> None:
    used = frozenset[str]().union(*(asked(expression) for _, expression in expressions()))
    assert used >= OTHERS, f"in no rule and no dashboard any more: {sorted(OTHERS - used)}"


@pytest.mark.parametrize("rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:  # Any: YAML
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert "$labels.gateway" in notes["summary"] or rule["alert"] == "HoldfastReleasesMixed", "which gateway?"
    assert all(notes[part].rstrip().endswith(".") for part in ("description", "runbook")), "sentences"
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_alerts_have_names_of_their_own() -> None:
    twice = [name for name, count in Counter(rule["alert"] for rule in rules() if "alert" in rule).items() if count > 1]
    assert not twice


def test_every_alert_is_played() -> None:
    """There is a case in which it fires."""
    cases = yaml.safe_load(CASES.read_text())["tests"]
    samples = [sample for case in cases for look in case["promql_expr_test"] for sample in look["exp_samples"]]
    fired = {name for sample in samples for name in re.findall(r'alertname="(\w+)"', sample["labels"])}
    assert {rule["alert"] for rule in rules() if "alert" in rule} == fired


def test_dashboards_have_ids_of_their_own() -> None:
    boards = [dashboard(path) for path in DASHBOARDS]
    assert {path.stem for path in DASHBOARDS} == {"fleet", "journal", "ledger", "scans", "uplinks"}
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards)
    assert all(re.fullmatch(r"[a-z-]{1,40}", board["uid"]) for board in boards)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_data_that_grafana_shows_as_it_is(path: Path) -> None:
    """Read-only, from our data source, no number in it that a database gave; each panel says its unit and what it means."""
    board = dashboard(path)
    assert board["editable"] is False
    assert "id" not in board
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        where = f"{path.stem}: {panel['title']}"
        assert panel["description"].endswith("."), f"{where}: what does it mean?"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, f"{where}: its unit?"
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "holdfast"} for source in sources), where
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), where


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_lie_on_each_other(path: Path) -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for place in (panel["gridPos"] for panel in dashboard(path)["panels"]):
        assert place["x"] + place["w"] <= 24
        taken.update((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"]))
    assert max(taken.values()) == 1


def test_nothing_listens_to_the_network_unless_told() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert {value for name, value in defaults.items() if name.endswith("_address")} == {"127.0.0.1"}


def test_only_what_the_role_packages_knows_is_installed() -> None:
    known = yaml.safe_load((ROOT / "ansible/roles/packages/vars/main.yml").read_text())["packages_known"]["observability"]
    wanted = yaml.safe_load((ROLE / "vars/main.yml").read_text())["observability_debian_packages"]
    assert set(re.findall(r"'([a-z-]+)'", wanted)) == set(known)


if shutil.which("promtool"):  # it comes with Debian's prometheus: the Molecule scenario observability has it, and runs this there

    def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
        """Each alert is played against series in which it must fire, and in which it must not."""
        for path in (*RULES, CASES):
            shutil.copy(path, tmp_path)
        done = subprocess.run(["promtool", "test", "rules", CASES.name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
