"""The reference page of the configuration, made from the Structs: one table a Struct, in the order of a document."""

from __future__ import annotations

from typing import Final

from gateway.config import templates
from gateway.config.drivers import Drivers, installed, usable
from gateway.config.explain import members_of
from gateway.config.faces import AnyFace
from gateway.config.load import SECRETS
from gateway.config.model import Site, Uplink
from gateway.config.options import Option, Shape, options_of, spoken, summary, tag_of
from gateway.config.schema import all_shapes

HEAD: Final = """\
# Configuration

<!-- Made from the Structs by `make docs`; a change here is lost. -->

A site is one YAML document (JSON is YAML, so machines write JSON). `holdfast check FILE` says everything that is wrong with
it, `holdfast schema` prints the JSON Schema for editors ([the same](site.schema.json)), `holdfast sample` prints a commented
document to start from ([the same](sample.yaml)).

Names carry their unit: `timeout_s` is seconds, `commit_window_ms` milliseconds, `max_bytes` bytes. Unknown keys and keys that
stand twice are errors. Paths are relative to the document. Plain values follow YAML 1.2: `on`, `yes` and `12:30` are text,
only `true` and `false` are bools. Anchors, aliases and merge keys (`<<: *name`) may be used.
"""


def reference(*, drivers: Drivers | None = None) -> str:
    """The page, Markdown."""
    used = usable(installed() if drivers is None else drivers)
    connections = [driver.options for _, driver in sorted(used.items())]
    below_site = [one for option in options_of(Site) if not option.several for one in option.shapes]
    order = all_shapes([Site, *below_site])[: 1 + len(below_site)]
    rest = [one for one in all_shapes([Site, *connections, *members_of(Uplink), *members_of(AnyFace)]) if one not in order]
    titles = {shape: _title(shape) for shape in [*order, *rest]}
    titles |= {option.shapes[0]: option.key for option in options_of(Site) if len(option.shapes) == 1}
    kinds = {"connections": connections, "templates": _templated(connections)}
    return HEAD + "".join(_section(shape, titles, kinds) for shape in _arranged(order, connections, rest))


def _arranged(first: list[Shape], connections: list[Shape], rest: list[Shape]) -> list[Shape]:
    """Site, connections and what is below them, uplinks, faces, then what they share."""
    uplinks = [*members_of(Uplink), *members_of(AnyFace)]
    field = [one for one in all_shapes(connections) if one in rest]
    shared = [one for one in field if one in all_shapes(uplinks)]
    own = [one for one in field if one not in shared]
    others = [one for one in rest if one not in own and one not in uplinks and one not in SECRETS]
    return [*first, *own, *uplinks, *others, *(one for one in rest if one in SECRETS)]


def _title(shape: Shape) -> str:
    if (tag := tag_of(shape)) is not None:
        return f"{tag[0]}: {tag[1]}"
    return "The document" if shape is Site else shape.__name__


def _section(shape: Shape, titles: dict[Shape, str], kinds: dict[str, list[Shape]]) -> str:
    tag = tag_of(shape)
    lines = [f"\n## {_heading(titles[shape])}\n", f"{summary(shape)}\n"]
    lines += ["| key | what it is | default | meaning |", "|---|---|---|---|"]
    if tag is not None:
        lines.append(f"| `{tag[0]}` | `{tag[1]}` | needed | Chooses this shape. |")
    for option in options_of(shape):
        shapes = kinds.get(option.key, []) if shape is Site and option.key in kinds else list(option.shapes)
        lines.append(f"| `{option.key}` | {_cell(_kind(option, shapes, titles))} | {_cell(_default(option))} | {_cell(option.meaning)} |")
    if shape in kinds.get("templates", []):
        lines += [f"| `{key}` | {expected} | none | {_cell(meaning)} |" for key, (expected, meaning, _) in templates.OPTIONS.items()]
    return "\n".join(lines) + "\n"


def _templated(connections: list[Shape]) -> list[Shape]:
    """The shapes of devices that templates describe."""
    mine = [one for one in connections if (tag := tag_of(one)) and tag[1].startswith(templates.PROTOCOLS)]
    return [shape for one in mine for option in options_of(one) if option.key == "devices" for shape in option.shapes]


def _heading(title: str) -> str:
    return f"`{title}`" if title[0].islower() else title


def _kind(option: Option, shapes: list[Shape], titles: dict[Shape, str]) -> str:
    if not shapes:
        return option.expected
    links = " or ".join(f"[{titles[one]}](#{_anchor(titles[one])})" for one in shapes)
    return f"list of {links}" if option.several or option.key == "connections" else links


def _anchor(title: str) -> str:
    """GitHub's anchor of a heading."""
    return "".join(sign for sign in title.lower().replace(" ", "-") if sign.isalnum() or sign in "-_")


def _default(option: Option) -> str:
    if option.required:
        return "needed"
    if option.shapes and option.default:
        return "as below"
    if option.default is None:
        return "none"
    return f"`{spoken(option.default, option.unit)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") or " "
