"""What types ask for and what values look like, in words: the texts of the loader's problems and of the generated pages.

Types are read as annotations write them (``Annotated``, unions, Literals, Structs). Pure; it decides nothing about right
and wrong, that is msgspec's.
"""

from __future__ import annotations

import difflib
import enum
import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final

import msgspec

from gateway.config.document import Plain, quote, resolve

TypeForm = Any  # a type as annotations write it: a class, Annotated, a union, a generic alias

SYNONYMS: Final = {
    "address": "at", "register": "at", "offset": "at", "slave": "unit_id", "slave_id": "unit_id", "unit": "unit_id", "device_id": "unit_id",
    "datatype": "kind", "data_type": "kind", "type": "kind", "interval": "scan_s", "poll": "scan_s", "period": "scan_s", "cycle": "scan_s",
    "scan_rate": "scan_s", "polling_interval": "scan_s", "ip": "host", "hostname": "host", "server": "host", "url": "host",
    "serial": "serial_port", "device": "serial_port", "tty": "serial_port", "factor": "scale", "multiplier": "scale", "points": "tags",
    "registers": "tags", "slaves": "devices", "hysteresis": "deadband", "user": "username", "ca": "ca_file", "cert": "cert_file",
    "key": "key_file", "id": "name", "ssl": "tls",
    "float": "float32", "real": "float32", "single": "float32", "double": "float64", "lreal": "float64", "int": "int16", "short": "int16",
    "s16": "int16", "i16": "int16", "word": "uint16", "u16": "uint16", "ushort": "uint16", "dint": "int32", "s32": "int32", "long": "int32",
    "dword": "uint32", "u32": "uint32", "u64": "uint64", "s64": "int64", "boolean": "bool", "bit": "bool", "str": "string",
}  # fmt: skip
"""What other products call our keys."""


def origin_of(form: TypeForm) -> object:
    """``typing.get_origin``, whose stub promises too much."""
    return typing.get_origin(form)


def unwrap(form: TypeForm) -> tuple[TypeForm, list[msgspec.Meta]]:
    """A type without its alias (``type X = ...``) and ``Annotated``, and its Metas."""
    form = getattr(form, "__value__", form)
    if origin_of(form) is Annotated:
        core, *extras = typing.get_args(form)
        return core, [one for one in extras if isinstance(one, msgspec.Meta)]
    return form, []


def members_of(core: TypeForm) -> list[TypeForm]:
    """The members of a union; a type alone is its own only member."""
    if origin_of(core) in (typing.Union, types.UnionType):
        return [unwrap(one)[0] if is_struct(unwrap(one)[0]) else one for one in typing.get_args(core)]
    return [core]


def is_struct(form: TypeForm) -> bool:
    return isinstance(form, type) and issubclass(form, msgspec.Struct)


def item_of(form: TypeForm) -> TypeForm | None:
    """``X`` of ``list[X]`` and ``tuple[X, ...]``."""
    core = unwrap(form)[0]
    origin, arguments = origin_of(core), typing.get_args(core)
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return arguments[0]
    return None


def entry_of(form: TypeForm) -> TypeForm | None:
    """``X`` of ``dict[str, X]``."""
    core = unwrap(form)[0]
    arguments = typing.get_args(core)
    return arguments[1] if origin_of(core) is dict and arguments[0] is str else None


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def meaning(form: TypeForm) -> str:
    """The description that stands at a type; the last one, which is the nearest to the field."""
    core, metas = unwrap(form)
    texts = [one.description for one in metas if one.description]
    if texts:
        return texts[-1]
    inner = [text for one in members_of(core) if one is not core and not is_struct(one) and (text := meaning(one))]
    if inner:
        return inner[0]
    return (core.__doc__ or "").split("\n")[0] if is_struct(core) else ""


def expectation(form: TypeForm, *, patterns: bool = True) -> str:
    """What a type asks for, in words: ``a whole number from 1 to 65535``. Without ``patterns`` no regular expression."""
    core, metas = unwrap(form)
    members = members_of(core)
    if len(members) > 1:
        return " or ".join(dict.fromkeys("null" if one is type(None) else expectation(one, patterns=patterns) for one in members))
    return _plain_expectation(core) + _limits(metas, core, patterns)


def choices(form: TypeForm) -> list[Plain]:
    """The values of a Literal or an Enum, as users write them."""
    core = unwrap(form)[0]
    if origin_of(core) is typing.Literal:
        return list(typing.get_args(core))
    if isinstance(core, type) and issubclass(core, enum.Enum):
        return [one.value for one in core]
    return []


_WORDS: Final[dict[TypeForm, str]] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing", bytes: "base64 text",
}  # fmt: skip


def _choice(value: Plain) -> str:
    return quote(value) if isinstance(value, str) and not isinstance(resolve(value), str) else str(value)


def _plain_expectation(core: TypeForm) -> str:
    if possible := choices(core):
        return ("one of " if len(possible) > 1 else "") + ", ".join(_choice(one) for one in possible)
    if item_of(core) is not None:
        return "a list"
    if entry_of(core) is not None or is_struct(core):
        return "keys with values"
    return _WORDS.get(core, str(getattr(core, "__name__", core)))


_LIMITS: Final = (
    ("gt", " above {}"),
    ("ge", " of at least {}"),
    ("le", " of at most {}"),
    ("lt", " below {}"),
    ("multiple_of", " that is a multiple of {}"),
    ("min_length", " of at least {} {noun}"),
    ("max_length", " of at most {} {noun}"),
    ("pattern", " like {}"),
)


_RANGES: Final = (
    ("ge", "le", " from {} to {}"),
    ("gt", "le", " above {} and up to {}"),
    ("min_length", "max_length", " of {} to {} {noun}"),
)


def _limits(metas: list[msgspec.Meta], core: TypeForm, patterns: bool) -> str:
    limits: dict[str, Any] = {name: limit for meta in metas for name, _ in _LIMITS if (limit := getattr(meta, name)) is not None}
    noun = "characters" if core is str else "entries"
    text = ""
    for low, high, shape in _RANGES:
        if low in limits and high in limits:
            text += shape.format(_number(limits.pop(low)), _number(limits.pop(high)), noun=noun)
    if limits.get("min_length") == 1:
        text += " that is not empty"
        limits.pop("min_length")
    if "pattern" in limits and (hint := next((meta.extra["hint"] for meta in metas if meta.extra and "hint" in meta.extra), "")):
        text += f": {hint}"
        limits.pop("pattern")
    if not patterns:
        limits.pop("pattern", None)
    return text + "".join(shape.format(_number(limits[name]), noun=noun) for name, shape in _LIMITS if name in limits)


def _number(limit: Any) -> str:  # Any: a limit of any kind
    return f"{limit:.15g}" if isinstance(limit, float) else str(limit)


# What values look like, and what may have been meant


def describe(value: Plain) -> str:
    """A value as a problem names it: short, printable."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    return f"a list of {len(value)}" if isinstance(value, list) else "a mapping of keys"


def did_you_mean(word: Plain, known: list[str]) -> str:
    """``did you mean ...?`` where one of ``known`` is near, else empty."""
    if not isinstance(word, str) or len(word) > 64:
        return ""
    plain = word.strip().lower().replace("-", "_").replace(" ", "_")
    shapes = {one.lower().replace("-", "_"): one for one in known}
    if plain in shapes:
        return f"did you mean {shapes[plain]}?"
    if (meant := SYNONYMS.get(plain)) in known:
        return f"did you mean {meant}?"
    prefixed = [one for shape, one in shapes.items() if shape.startswith(plain + "_")]
    if prefixed:
        return f"did you mean {prefixed[0]}?"
    near = difflib.get_close_matches(plain, list(shapes), n=1, cutoff=0.6)
    return f"did you mean {shapes[near[0]]}?" if near else ""


_UNITS: Final = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes", "_percent": "percent"}
_TRUE_FALSE: Final = {
    **dict.fromkeys(("yes", "on", "y"), "true"),
    **dict.fromkeys(("no", "off", "n"), "false"),
}


def unit_of(key: str) -> str:
    """The unit that a key's name carries, in words; empty for none."""
    return next((unit for ending, unit in _UNITS.items() if key.endswith(ending)), "")


def advise(value: Plain, form: TypeForm, key: str) -> str:
    """What somebody who wrote ``value`` where ``form`` is expected should write."""
    members = [unwrap(one)[0] for one in members_of(unwrap(form)[0])]
    for advice in (*_text_advice(value, form, members, key), *_other_advice(value, form, members)):
        if advice:
            return advice
    text = meaning(form)
    return text or "see docs/reference/configuration.md"


def _text_advice(value: Plain, form: TypeForm, members: list[TypeForm], key: str) -> Iterator[str]:
    if not isinstance(value, str):
        return
    if possible := choices(form):
        yield did_you_mean(value, [str(one) for one in possible])
    if bool in members:
        word = _TRUE_FALSE.get(value.lower(), value.lower())
        yield f"write {word} without quotes" if word in ("true", "false") else "write true or false without quotes"
    if int in members or float in members:
        yield _number_advice(value, key)
    if str in members:
        yield _pattern_advice(value, unwrap(form)[1])


def _pattern_advice(text: str, metas: list[msgspec.Meta]) -> str:
    """Which characters of ``text`` a pattern for names does not allow."""
    pattern = next((meta.pattern for meta in metas if meta.pattern), "")
    if not pattern or not re.search(pattern, "aaa"):
        return ""
    wrong = [sign for sign in dict.fromkeys(text) if not re.search(pattern, f"a{sign}a")]
    if wrong:
        return f"write it without {' '.join(quote(sign) for sign in wrong[:8])}"
    return "begin with a letter or digit" if text and re.search(pattern, f"a{text[1:]}") else ""


def _number_advice(text: str, key: str) -> str:
    unit = unit_of(key)
    bare = text.strip().replace("_", "").replace(",", ".")
    number = re.match(r"[-+]?\d{1,40}(?:\.\d{1,40})?", bare)
    if number is None:
        return ""
    shown = number[0].lstrip("0") or "0"
    shown = f"0{shown}" if shown.startswith(".") else shown
    if number[0] == bare:
        return f"write {shown}, without quotes, leading zeros or separators"
    return f"write the number alone, in {unit}" if unit else "write the number alone"


def _other_advice(value: Plain, form: TypeForm, members: list[TypeForm]) -> Iterator[str]:
    texts = str in members or any(isinstance(one, str) for one in choices(form))
    if texts and isinstance(value, bool | int | float):
        yield f'put it in quotes: "{describe(value).removeprefix("the number ")}"'
    if value is None:
        yield "give a value, or remove the key to have the default"
    if any(item_of(one) is not None for one in members):
        yield "begin each entry with a dash, or write [a, b]"
    if int in members and isinstance(value, float) and value.is_integer():
        yield f"write {int(value)}"


def shape_advice(value: Plain) -> str:
    """What somebody who wrote ``value`` where keys are expected should do."""
    if value is None:
        return "indent the keys below this line further than the line itself"
    if isinstance(value, list):
        return "remove the dash: this is one thing, not a list"
    return "write key: value pairs, indented below it"
