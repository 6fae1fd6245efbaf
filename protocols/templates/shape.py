"""What a template is: a device of one model described as data, with the questions it leaves open and an example that proves it.

One file describes a family: what its products share stands once, each product says which of the tags it has and what is
different. A tag is written as the driver's own tag options plus four keys of ours (``group``, ``when``, ``times``,
``shift``); what the driver does not know it refuses when a device is made of the template, so nothing is checked twice here.

Facts come from somewhere: every template names its sources, says how many of its tags a second, independent source
confirms, and carries registers with the values that must be read from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from protocols.model import Kind

Row = dict[str, Any]  # Any: a tag as it is written; the driver's Struct judges it
Answer = str | int | float
Patterns = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...], Meta(max_length=1000)]
Key = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
Words = Annotated[str, Meta(max_length=4000)]

MAX_TAGS: Final = 5000


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen, with known keys alone. Not a type of its own."""


class Hints(Struct, frozen=True, kw_only=True):
    """How the device is reached as it leaves the factory. Only hints: a site may have set it otherwise."""

    protocols: Annotated[tuple[str, ...], Meta(min_length=1, description="Types of connection that it speaks, usual first.")]
    port: Annotated[int | None, Meta(description="TCP port, if it is not the protocol's own.")] = None
    baud_rate: Annotated[Annotated[int, Meta(ge=300, le=4_000_000)] | None, Meta(description="Bits per second on a serial line.")] = None
    parity: Annotated[Literal["even", "odd", "none"] | None, Meta(description="Parity on a serial line.")] = None
    stop_bits: Annotated[Literal[1, 2] | None, Meta(description="Stop bits on a serial line.")] = None
    unit_id: Annotated[Annotated[int, Meta(ge=0, le=255)] | None, Meta(description="Unit id.")] = None
    note: Annotated[Words, Meta(description="What else must be set at the device, for a person.")] = ""


class Question(Struct, frozen=True, kw_only=True):
    """What only somebody at the device knows. Answers scale tags (``times``), move them (``shift``), choose them (``when``)."""

    ask: Annotated[Words, Meta(description="The question, for a person.")]
    default: Annotated[Answer, Meta(description="The answer where none is given.")]
    type: Annotated[Literal["number", "integer", "choice"], Meta(description="What an answer is.")] = "number"
    minimum: Annotated[float | None, Meta(description="Least answer that is a number.")] = None
    maximum: Annotated[float | None, Meta(description="Greatest answer that is a number.")] = None
    choices: Annotated[dict[str, str], Meta(max_length=64, description="The possible answers of a choice, each with its meaning.")] = {}
    sets: Annotated[str, Meta(description="Key of the device that gets the answer, such as word_order.")] = ""


WRITABLE: Final = "writable"
MAY_WRITE: Final = Question(
    ask="May commands write what can be written (outputs, control words)?",
    type="choice",
    choices={"no": "everything is only read", "yes": "commands may write"},
    default="no",
)
"""The question of every template with a writable tag: a template alone never opens a device to commands."""


class Mark(Struct, frozen=True, kw_only=True):
    """One reading by which a device is recognised."""

    tag: Annotated[Row, Meta(description="What to read: a tag without its name.")]
    means: Annotated[Words, Meta(description="What it says, for a person.")]
    one_of: Annotated[tuple[Any, ...], Meta(description="The values that this model shows.")] = ()  # Any: numbers or text
    minimum: float | None = None
    maximum: float | None = None


class Recorded(Struct, frozen=True, kw_only=True):
    """An example that proves a template: what a device holds, and what is read from it."""

    origin: Annotated[
        Literal["manual", "constructed"],
        Meta(description="manual: from the maker's documents; constructed: plausible values, laid out as documented."),
    ]
    note: Words = ""
    answers: dict[str, Answer] = {}
    registers: Annotated[
        dict[str, str], Meta(description="From an address on (holding:0), registers as hexadecimal words, or bits as 0 and 1.")
    ]
    values: Annotated[dict[str, Any], Meta(description="What each tag reads; a number, text or bool.")]  # Any: see there


class Product(Struct, frozen=True, kw_only=True):
    """One product of a family: what it has of it, and what is its own."""

    models: Annotated[tuple[str, ...], Meta(min_length=1, description="Names on the type plate.")]
    description: Words = ""
    only: Annotated[Patterns, Meta(description="Which of the family's tags it has; empty for all.")] = ()
    without: Annotated[Patterns, Meta(description="Which of them it lacks.")] = ()
    tags: Annotated[tuple[Row, ...], Meta(description="Tags of its own; one of a known name changes that.")] = ()
    connection: Hints | None = None
    device: Row = {}
    identify: tuple[Mark, ...] | None = None
    sources: dict[str, str] | None = None
    confirmed: int | None = None
    recorded: Recorded | None = None


class Family(Struct, frozen=True, kw_only=True):
    """One file: what its products share."""

    template: Annotated[Literal[1], Meta(description="Version of this format.")]
    version: Annotated[int, Meta(ge=1, description="Version of this description; it grows with every change of a tag.")] = 1
    manufacturer: Annotated[str, Meta(min_length=1, max_length=80)]
    kind: Annotated[
        Literal["energy meter", "inverter", "storage", "drive", "plc", "sensor", "io", "controller", "heat pump"],
        Meta(description="What sort of device it is."),
    ]
    description: Words = ""
    connection: Hints
    device: Annotated[Row, Meta(description="Keys of the driver's device: word_order, max_registers, request_delay_s.")] = {}
    questions: Annotated[dict[Key, Question], Meta(max_length=64)] = {}
    groups: Annotated[
        dict[str, float], Meta(description="Speeds by name: the least period of a tag in seconds; 0 goes with the device's scan_s.")
    ] = msgspec.field(default_factory=lambda: {"fast": 0.0, "energy": 10.0, "slow": 300.0})
    defaults: Annotated[Row, Meta(description="What every tag has unless it says otherwise.")] = {}
    invalid: Annotated[
        dict[Kind, tuple[int, ...]],
        Meta(description="By kind, the raw numbers by which the device says that it has no value: of every tag that has no own invalid."),
    ] = {}
    tags: Annotated[tuple[Row, ...], Meta(max_length=MAX_TAGS)] = ()
    walk: Annotated[Literal["", "sunspec"], Meta(description="sunspec: the tags are found in the device, by walking its models.")] = ""
    walk_models: Annotated[tuple[int, ...], Meta(description="SunSpec models whose points are tags; empty for all that are known.")] = ()
    identify: tuple[Mark, ...] = ()
    sources: Annotated[dict[str, str], Meta(description="Where the facts come from: a key of sources.yaml, and where in it.")] = {}
    confirmed: Annotated[int, Meta(ge=0, description="Tags that a second, independent source confirms.")] = 0
    recorded: Recorded | None = None
    products: Annotated[dict[str, Product], Meta(min_length=1, max_length=500)]


class Source(Struct, frozen=True, kw_only=True):
    """Where facts were taken from, and under what licence."""

    title: str
    url: str
    licence: str
    use: Annotated[Literal["data", "facts"], Meta(description="data: tables were converted; facts: register numbers were looked up.")]


class TemplateTag(Struct, frozen=True, kw_only=True):
    """A tag of a template: the driver's options, and what answers do to them."""

    name: str
    group: str = "fast"
    when: dict[str, tuple[str, ...]] = {}
    """The tag is there only if each of these questions has one of these answers."""
    times: tuple[str, ...] = ()
    """Questions whose answers multiply ``scale`` (and ``offset``)."""
    shift: str = ""
    """Question whose answer is added to the address in ``at``."""
    options: Row = {}


class Template(Struct, frozen=True, kw_only=True):
    """One product, whole: what a device is made of."""

    name: str
    """Folder and product: ``eastron/sdm630``."""
    manufacturer: str
    models: tuple[str, ...]
    kind: str
    version: int
    description: str
    connection: Hints
    device: Row
    questions: dict[str, Question]
    groups: dict[str, float]
    tags: tuple[TemplateTag, ...]
    walk: str
    walk_models: tuple[int, ...]
    identify: tuple[Mark, ...]
    sources: dict[str, str]
    confirmed: int
    recorded: Recorded | None

    @property
    def checked(self) -> str:
        """How well the facts are proven, for a person."""
        if self.walk:
            return "the published models"
        if not self.confirmed:
            return "one source"
        return "two sources" if self.confirmed >= len(self.tags) else f"two sources for {self.confirmed} of {len(self.tags)} tags"
