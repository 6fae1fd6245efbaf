"""Finds templates: Holdfast's own, and those in folders of a site. ``eastron/sdm630`` is product ``sdm630`` in folder ``eastron``.

A file that is wrong is an :class:`Unusable`, which says what and where. A template of a site goes before one of ours that has
the same name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

from protocols.templates.shape import MAY_WRITE, WRITABLE, Family, Product, Row, Source, Template, TemplateTag

OWN: Final = Path(__file__).parent / "data"
MAX_BYTES: Final = 4 * 1024**2
MAX_FILES: Final = 2000
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
SHORTEST_MODEL: Final = 3
"""Letters and digits of a model's name; a shorter one is found in any text."""
T = TypeVar("T")


class Unusable(Exception):
    """A template, or a file of templates, that cannot be used. The text says what, where, and what to do."""


class _Strict(yaml.CSafeLoader):
    """Refuses keys that stand twice (YAML takes the last of them silently) and aliases (a few can stand for gigabytes)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # Any: keys and values of YAML
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


_Strict.yaml_implicit_resolvers = {}
for _tag_name, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
):  # as in a site document: only true and false are bools, yes and 12:30 are text
    _Strict.add_implicit_resolver(f"tag:yaml.org,2002:{_tag_name}", re.compile(f"^(?:{_pattern})$"), [*_first])


def read(path: Path, shape: type[T]) -> T:
    """The file at ``path`` as ``shape``. Raises Unusable."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise Unusable(f"{path} has more than {MAX_BYTES} bytes: split it")
    try:
        text = raw.decode("utf-8")
        if not path.is_relative_to(OWN) and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.CSafeLoader)):
            raise Unusable(f"{path}: a template has no aliases (*name): write it out")
        return msgspec.convert(yaml.load(text, Loader=_Strict), shape)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, msgspec.ValidationError):
            raise Unusable(f"{path}: {error}: see how a template is written, docs/how-to/write-a-template.md") from error
        raise Unusable(f"{path} is not YAML: {' '.join(str(error).split())}") from error


class Library:
    """The templates in ``folders`` and Holdfast's own. Files are read when they are first asked for, and kept."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._roots = (*folders, OWN)
        self._families: dict[Path, Family] = {}
        self._templates: dict[str, Template] = {}

    def __getitem__(self, name: str) -> Template:
        """Raises KeyError where there is none of that name, Unusable where it cannot be used."""
        if name in self._templates:
            return self._templates[name]
        if not _NAME.fullmatch(name):
            raise KeyError(name)
        folder, _, product = name.partition("/")
        for root in self._roots:
            for path in _files(root, folder):
                family = self._family(path)
                if product in family.products:
                    return self._templates.setdefault(name, resolved(name, family, product))
        raise KeyError(name)

    def names(self) -> Iterator[str]:
        """Every template's name, sorted. Raises Unusable."""
        found: dict[str, None] = {}
        for root in self._roots:
            for path in _files(root, "*"):
                found |= dict.fromkeys(f"{path.parent.name}/{product}" for product in self._family(path).products)
        yield from sorted(found)

    def find(self, word: str = "") -> Iterator[Template]:
        """Templates in whose name, manufacturer, models, kind or description ``word`` occurs."""
        for name in self.names():
            template = self[name]
            text = " ".join((name, template.manufacturer, *template.models, template.kind, template.description)).casefold()
            if all(part in text for part in word.casefold().split()):
                yield template

    def suggested(self, text: str, limit: int = 10) -> list[Template]:
        """Templates of the models that ``text`` names, as devices say what they are ("METSEPM5110 rev 2"); the longest name first."""
        said = _letters(text)
        found: list[tuple[int, str, Template]] = []
        for template in self.find():
            lengths = [len(model) for one in template.models if len(model := _letters(one)) >= SHORTEST_MODEL and model in said]
            if lengths:
                found.append((-max(lengths) - 100 * (_letters(template.manufacturer) in said), template.name, template))
        return [template for _, _, template in sorted(found, key=lambda one: one[:2])[:limit]]

    def _family(self, path: Path) -> Family:
        if path not in self._families:
            self._families[path] = read(path, Family)
        return self._families[path]


def _letters(text: str) -> str:
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def _files(root: Path, folder: str) -> list[Path]:
    return sorted(path for path in root.glob(f"{folder}/*.yaml"))[:MAX_FILES]


@cache
def own() -> Library:
    """Holdfast's own templates."""
    return Library()


@cache
def sources() -> Mapping[str, Source]:
    """Where the facts of our own templates come from."""
    return read(OWN / "sources.yaml", dict[str, Source])


def resolved(name: str, family: Family, product_name: str) -> Template:
    """The product of ``family``, whole. Raises Unusable."""
    product = family.products[product_name]
    rows = [{**family.defaults, **row} for row in family.tags]
    rows = [row for row in rows if _has(product, str(row.get("name", "")))]
    for own_row in product.tags:
        at = next((at for at, row in enumerate(rows) if row.get("name") == own_row.get("name")), None)
        if at is None:
            rows.append({**family.defaults, **own_row})
        else:
            rows[at] = {**rows[at], **own_row}
    tags = tuple(_tag(name, family, {**_without_value(family, row), **row}) for row in rows)
    return Template(
        name=name,
        manufacturer=family.manufacturer,
        models=product.models,
        kind=family.kind,
        version=family.version,
        description=" ".join(part.strip() for part in (family.description, product.description) if part.strip()),
        connection=product.connection or family.connection,
        device={**family.device, **product.device},
        questions={
            **{key: one for key, one in family.questions.items() if family.walk or one.sets or _asked(key, tags)},
            **({WRITABLE: MAY_WRITE} if any(tag.options.get("writable") for tag in tags) else {}),
        },
        groups=family.groups,
        tags=tags,
        walk=family.walk,
        walk_models=family.walk_models,
        identify=family.identify if product.identify is None else product.identify,
        sources=family.sources if product.sources is None else product.sources,
        confirmed=family.confirmed if product.confirmed is None else product.confirmed,
        recorded=product.recorded or family.recorded,
    )


def _without_value(family: Family, row: Row) -> Row:
    """The ``invalid`` that a tag of this kind has in this family."""
    numbers = next((numbers for kind, numbers in family.invalid.items() if kind == row.get("kind")), ())
    return {"invalid": [*numbers]} if numbers else {}


def _has(product: Product, tag: str) -> bool:
    return (not product.only or matches(tag, product.only)) and not matches(tag, product.without)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of ``patterns`` (``power/*``; a star goes over slashes) fits ``name``."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _asked(question: str, tags: tuple[TemplateTag, ...]) -> bool:
    return any(question in tag.times or question in tag.when or question == tag.shift for tag in tags)


_OURS: Final = ("name", "group", "when", "times", "shift")
"""Keys of a tag that are ours; the rest is the driver's."""


def _tag(name: str, family: Family, row: Row) -> TemplateTag:
    mine: Row = {key: one for key, one in row.items() if key in _OURS}
    rest: Row = {key: one for key, one in row.items() if key not in _OURS}
    try:
        tag = msgspec.convert({**mine, "options": rest}, TemplateTag)
    except msgspec.ValidationError as error:
        raise Unusable(f"template {name}: tag {row.get('name')!r}: {error}") from error
    unknown = [one for one in (*tag.times, *tag.when, *((tag.shift,) if tag.shift else ())) if one not in family.questions]
    if unknown:
        raise Unusable(f"template {name}: tag {tag.name!r} names the question {unknown[0]!r}, which is not asked: add it to questions")
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in (rest.get("scale", 1.0), rest.get("offset", 0.0))):
        raise Unusable(f"template {name}: tag {tag.name!r} has a scale or an offset that is no number")
    if tag.group not in family.groups:
        raise Unusable(f"template {name}: tag {tag.name!r} is in the group {tag.group!r}; there is {', '.join(family.groups)}")
    return tag
