"""Configuration: what runs, what a document would change, what was applied by whom, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import Fault, TimeNs

LONGEST_DOCUMENT = 16 * 1024 * 1024

Number = Annotated[int, Meta(ge=1, le=2**53, description="Number of a revision; each is used once.", examples=[7])]
Reason = Annotated[str, Meta(max_length=1000, description="Why, for whoever reads the history.", examples=["new meter in hall 2"])]
Within = Annotated[
    float, Meta(ge=1, le=86_400, description="Seconds until the gateway goes back by itself unless it is confirmed.", examples=[120])
]
Base = Annotated[int, Meta(ge=0, le=2**53, description="Refuse (412) unless this revision runs: base of the plan.")]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs between two documents."""

    path: Annotated[str, Meta(description="Where; list entries by name.", examples=["connections[hall].devices[meter-1].scan_s"])]
    kind: Literal["added", "removed", "changed"]
    before: Annotated[Any, Meta(description="JSON; long values by their length.", examples=[1.0])] = None
    after: Annotated[Any, Meta(examples=[0.5])] = None


class PlannedParts(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the connections, the uplinks or the faces, by name."""

    added: list[str] = []
    changed: Annotated[list[str], Meta(description="These are stopped and started anew.")] = []
    removed: list[str] = []
    unchanged: Annotated[int, Meta(description="How many go on with their session, cursor and aliases.")] = 0


class BusCost(msgspec.Struct, frozen=True, kw_only=True):
    """What scanning a connection takes of it. Null: its protocol does not say, or the connection is not there."""

    connection: Annotated[str, Meta(examples=["hall"])]
    requests_s_before: Annotated[float | None, Meta(description="Requests a second.")] = None
    requests_s: float | None = None
    share_before: Annotated[float | None, Meta(description="Share of the connection's time; above 1 it is too much.")] = None
    share: float | None = None


class JournalCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal takes, if every value of every scan is kept, and how long it then lasts."""

    values_s_before: Annotated[float, Meta(description="Values a second.")]
    values_s: float
    bytes_day_before: Annotated[float, Meta(description="Bytes on disk a day.")]
    bytes_day: float
    holds_s_before: Annotated[float | None, Meta(description="How long until the journal is full, in seconds; null: nothing fills it.")]
    holds_s: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a document would do, and what it would cost. Nothing has been touched."""

    base: Annotated[int, Meta(description="The revision that it was compared with; 0 is nothing. Send it as base when you apply.")]
    nothing: Annotated[bool, Meta(description="The document is the one that runs.")]
    connections: PlannedParts
    uplinks: PlannedParts
    faces: PlannedParts
    api: Literal["unchanged", "added", "changed", "removed"]
    live: Annotated[list[str], Meta(description="Other sections that differ and are used at once.")] = []
    after_restart: Annotated[list[str], Meta(description="Sections that differ and are used from the next start on.")] = []
    bus: list[BusCost] = []
    journal: JournalCost
    warnings: Annotated[list[Fault], Meta(description="What is not wrong, but should be known.")] = []
    changes: list[Difference] = []
    more_changes: Annotated[int, Meta(description="Further differences, which are not listed.")] = 0
    text_diff: Annotated[str, Meta(description="Unified diff of the two documents; empty where they are too long for it.")] = ""


class Worse(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was up before a revision and did not come up with it."""

    kind: Annotated[str, Meta(examples=["uplink"])]
    name: Annotated[str, Meta(examples=["cloud"])]
    trouble: str


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A revision that goes unless it is confirmed."""

    within_s: float
    until_ns: Annotated[int, Meta(description="When it goes, by the gateway's clock as it was then; UTC, nanoseconds.")]
    remaining_s: Annotated[float, Meta(description="How long is left.")]


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration that was applied."""

    number: Number
    made_ns: TimeNs
    author: Annotated[str, Meta(description="Who: file, gateway, or somebody.", examples=["user:anna"])]
    origin: Annotated[Literal["file", "api", "console", "gateway"], Meta(description="Which way it came.")]
    reason: str
    standing: Annotated[
        Literal["trial", "confirmed", "reverted"],
        Meta(description="trial: it runs and waits to be confirmed; reverted: it was not, or somebody went back."),
    ]
    running: Annotated[bool, Meta(description="It is the one that runs now.")]
    base: Annotated[int, Meta(description="The revision that ran before; 0 is none.")]
    digest: Annotated[str, Meta(description="SHA-256 of the document.")]
    bytes: Annotated[int, Meta(description="Length of the document.")]
    changed: Annotated[int, Meta(description="How many differences there are to its base.")]
    templates: Annotated[dict[str, str], Meta(description="The site's own templates that it names, with their SHA-256 at that time.")] = {}
    trial: Trial | None = None
    ended: Annotated[str, Meta(description="Why it was confirmed or reverted, and by whom.")] = ""
    worse: Annotated[list[Worse], Meta(description="What was up before it, and is not with it.")] = []
    watched: Annotated[bool, Meta(description="The gateway has looked whether everything came up again.")] = False


class RevisionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A revision with its document and what it changed."""

    revision: Revision
    document: Annotated[str, Meta(description="As it was sent; it holds references to secrets and never a secret.")]
    changes: list[Difference]
    more_changes: int = 0
    text_diff: str = ""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a wish to apply a document."""

    changed: Annotated[bool, Meta(description="False: this very document runs already, and nothing was done.")]
    revision: Revision
    plan: Plan


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The document that runs."""

    number: int
    standing: Literal["trial", "confirmed", "reverted"]
    digest: str
    document: str


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How the file that the gateway was started with differs from what runs."""

    state: Annotated[
        Literal["none", "same-meaning", "differs", "unreadable", "no-file"],
        Meta(description="same-meaning: only comments, order of keys or layout differ."),
    ]
    file: Annotated[str, Meta(description="Path of the document on the gateway.", examples=["/etc/holdfast/site.yaml"])] = ""
    running: Annotated[int, Meta(description="Number of the revision that runs.")] = 0
    trouble: Annotated[str, Meta(description="Why the file cannot be read or used.")] = ""
    changes: Annotated[list[Difference], Meta(description="From the file to what runs.")] = []
    more_changes: int = 0
    text_diff: str = ""


class ApplyDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish to have a document run."""

    document: Annotated[
        Annotated[str, Meta(min_length=1, max_length=LONGEST_DOCUMENT)] | dict[str, Any],
        Meta(description="The site document: its text (YAML or JSON), or the document itself.", examples=["holdfast: 1\n..."]),
    ]
    reason: Reason = ""
    confirm_within_s: Within | None = None
    base: Base | None = None


class ConfirmRevision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a revision on trial stays."""

    reason: Reason = ""


class RollBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish to have an earlier document run again."""

    reason: Reason = ""
    confirm_within_s: Within | None = None
    base: Base | None = None
