"""Everything that is wrong with an MQTT connection beyond what types and limits can say: all of it, with path and advice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocols.contract import Problem
from protocols.mqtt import config
from protocols.mqtt.config import DEVICE, Described, Mqtt
from protocols.mqtt.plan import described, payload_options
from protocols.mqtt.topics import filled, filter_trouble, topic_trouble
from protocols.options import error, unique_names, warning
from protocols.payload import Format, payload_problems, problems_of_tag
from protocols.payload.edge import place_of
from protocols.payload.paths import compile_path
from protocols.payload.trouble import BadPlace

MOST_TAGS: Final = 200_000
"""Tags of one connection, families unfolded."""
MOST_DEVICES: Final = 20_000
_STAND_IN: Final = "d"


def check(options: Mqtt) -> list[Problem]:
    """All problems of ``options``; paths are relative to it."""
    problems = list(_names(options))
    for at, device in enumerate(options.devices):
        problems.extend(_described(device, f"devices[{at}]", device.name))
    for at, family in enumerate(options.families):
        problems.extend(_described(family, f"families[{at}]", _STAND_IN))
        problems.extend(_family(family, f"families[{at}]"))
    problems.extend(_broker(options))
    return problems


def _names(options: Mqtt) -> Iterator[Problem]:
    yield from unique_names(options.devices, "devices", "device")
    places = {device.name: f"devices[{at}]" for at, device in reversed(list(enumerate(options.devices)))}
    for at, family in enumerate(options.families):
        for number, name in enumerate(family.names):
            path = f"families[{at}].names[{number}]"
            if places.setdefault(name, path) != path:
                yield error(path, f"{places[name]} is called {name!r} too", "give each device its own name")
    devices = len(options.devices) + sum(len(family.names) for family in options.families)
    tags = sum(len(one.tags) for _, one in described(options)) if devices <= MOST_DEVICES else 0
    if devices > MOST_DEVICES or tags > MOST_TAGS:
        advice = "spread them over more connections"
        yield error("families", f"these are {devices} devices with {tags} tags; at most {MOST_DEVICES} with {MOST_TAGS}", advice)


def _broker(options: Mqtt) -> Iterator[Problem]:
    if options.password is not None and not options.username:
        yield warning("username", "there is a password and no user name", "write the user name, or take the password away")
    if options.username and options.tls is None:
        yield warning("tls", "user name and password go over the link in the clear", "write tls, unless nobody else is on this network")
    if options.session_expiry_s and any(one.qos == 0 for one in (*options.devices, *options.families)):
        yield warning("session_expiry_s", "a broker keeps nothing for subscriptions at qos 0", "write qos: 1 for the devices that matter")


def _family(family: config.Family, path: str) -> Iterator[Problem]:
    texts = {"topic": family.topic, "status_topic": family.status_topic, "command_topic": family.command_topic}
    for field, text in texts.items():
        if text and DEVICE not in text:
            yield error(f"{path}.{field}", f"{text!r} is the same for every device of the family", "write {device} where the name stands")
    for at, tag in enumerate(family.tags):
        if tag.topic and DEVICE not in tag.topic:
            yield error(f"{path}.tags[{at}].topic", f"{tag.topic!r} is the same for every device of the family", "write {device} into it")


def _described(one: Described, path: str, name: str) -> Iterator[Problem]:
    yield from unique_names(one.tags, f"{path}.tags", "tag of a device")
    yield from payload_problems(one, path)
    yield from _topics(one, path, name)
    formats: dict[str, Format | None] = {}
    for at, tag in enumerate(one.tags):
        where = f"{path}.tags[{at}]"
        yield from problems_of_tag(tag, payload_options(one, [tag]), where)
        yield from _tag(tag, one, where, name)
        if tag.topic and formats.setdefault(tag.topic, tag.format) != tag.format:
            yield error(
                f"{where}.format", f"another tag of {tag.topic} has the format {formats[tag.topic] or one.format}", "a topic has one format"
            )
    if one.verify and not any(tag.writable for tag in one.tags):
        yield warning(f"{path}.verify", "no tag is writable", "take verify away")
    if not one.silence_s and not one.status_topic and one.format is not Format.SPARKPLUG:
        advice = "write silence_s (a few times the pause between messages), or status_topic if the device has a last will"
        yield warning(f"{path}.silence_s", "nobody would notice that the device is gone: its last value would stay good", advice)


def _topics(one: Described, path: str, name: str) -> Iterator[Problem]:
    if one.format is Format.SPARKPLUG:
        try:
            place_of(filled(one.topic, name))
        except BadPlace as trouble:
            yield error(f"{path}.topic", str(trouble), trouble.advice)
    elif trouble_text := filter_trouble(filled(one.topic, name)):
        yield error(f"{path}.topic", f"{one.topic!r} is no topic filter: {trouble_text}", "write a topic such as sensors/{device}/env")
    if one.status_topic and (trouble_text := filter_trouble(filled(one.status_topic, name))):
        yield error(f"{path}.status_topic", f"{one.status_topic!r} is no topic filter: {trouble_text}", "write the topic of its last will")
    if one.status_at:
        try:
            compile_path(one.status_at)
        except BadPlace as trouble:
            yield error(f"{path}.status_at", str(trouble), trouble.advice)
    if one.command_topic and (trouble_text := topic_trouble(filled(one.command_topic, name, _STAND_IN))):
        yield error(f"{path}.command_topic", f"{one.command_topic!r}: {trouble_text}", "write the topic that the device subscribes to")


def _tag(tag: config.Tag, one: Described, path: str, name: str) -> Iterator[Problem]:
    is_sparkplug = one.format is Format.SPARKPLUG
    if is_sparkplug and (tag.topic or tag.format):
        yield error(f"{path}.topic", "a Sparkplug metric has no topic or format of its own", "take topic and format away")
    elif tag.topic and (trouble := filter_trouble(filled(tag.topic, name))):
        yield error(f"{path}.topic", f"{tag.topic!r} is no topic filter: {trouble}", "write a topic such as sensors/{device}/env")
    if tag.format and not tag.topic:
        yield error(f"{path}.format", "a format of its own goes with a topic of its own", "write topic too, or the format for the device")
    if tag.format is Format.SPARKPLUG:
        yield error(f"{path}.format", "sparkplug is a format of whole devices", "write format: sparkplug for the device")
    if tag.writable and not is_sparkplug and not (tag.command_topic or one.command_topic):
        yield error(f"{path}.writable", "there is no command_topic: nobody knows where a command goes", "write command_topic")
    if tag.command_topic and (trouble := topic_trouble(filled(tag.command_topic, name, _STAND_IN))):
        yield error(f"{path}.command_topic", f"{tag.command_topic!r}: {trouble}", "write the topic that the device subscribes to")
