"""Devices that publish to a broker, as a program of their own (paho): ``python -m tests.protocols.mqtt.device HOST PORT``.

Each device publishes its state as JSON every 50 ms on ``plant/<device>/state`` (and nothing while it is hushed), takes commands on
``plant/<device>/set/<tag>`` and has a last will on ``plant/<device>/status``. One-line commands on standard input:

    hold DEVICE JSON     what it publishes from now on (an object)
    set DEVICE KEY JSON  one key of it
    keep DEVICE KEY      commands do not change this key
    hush DEVICE 0|1      be silent
    send TOPIC QOS RETAIN HEX   publish these bytes
    die DEVICE           the connection is cut, so that the broker publishes its last will
    seen                 the commands since this was last asked
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

PERIOD_S: Final = 0.05
VERSION: Final = CallbackAPIVersion.VERSION2


class Device:
    """One device with a connection of its own."""

    def __init__(self, name: str, host: str, port: int, seen: list[str], user: str = "", password: str = "") -> None:
        self.name, self._seen = name, seen
        self.state: dict[str, Any] = {}  # Any: JSON
        self.kept: set[str] = set()
        self.silent = False
        self.client = paho.Client(VERSION, client_id=f"device-{name}", protocol=paho.MQTTv5)
        if user:
            self.client.username_pw_set(user, password)
        self.client.will_set(f"plant/{name}/status", b"offline", 1, True)
        self.client.on_connect = self._connected
        self.client.on_message = self._told
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async(host, port, keepalive=5)
        self.client.loop_start()

    def _connected(self, client: paho.Client, *_: object) -> None:
        client.subscribe(f"plant/{self.name}/set/+", 1)
        client.publish(f"plant/{self.name}/status", b"online", 1, True)

    def _told(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self._seen.append("write")
        key = message.topic.rpartition("/")[2]
        if key not in self.kept:
            self.state[key] = json.loads(message.payload)["value"]

    def publish(self) -> None:
        if not self.silent and self.client.is_connected():
            self.client.publish(f"plant/{self.name}/state", json.dumps(self.state).encode(), 1)

    def die(self) -> None:
        sock = self.client.socket()
        if sock is not None:
            sock.close()  # without DISCONNECT: the broker publishes the will
        self.client.loop_stop()


def main(host: str, port: int) -> None:
    seen: list[str] = []
    devices: dict[str, Device] = {}

    def beat() -> None:
        while True:
            time.sleep(PERIOD_S)
            for each in list(devices.values()):
                each.publish()

    threading.Thread(target=beat, daemon=True).start()
    print("ready", flush=True)  # noqa: T201 # how a peer answers
    for line in sys.stdin:
        word, *rest = line.rstrip("\n").split(" ", 2 if line.startswith("hold") else 4)
        if word == "seen":
            said, seen[:] = " ".join(seen), []
            print(f"ok {said}", flush=True)  # noqa: T201 # as above
            continue
        if word == "send":
            any_client = next(iter(devices.values())).client
            any_client.publish(rest[0], bytes.fromhex(rest[3]), int(rest[1]), rest[2] == "1").wait_for_publish(5)
        else:
            if rest[0] not in devices:
                devices[rest[0]] = Device(rest[0], host, port, seen)
            _told(devices[rest[0]], word, rest)
        print("ok", flush=True)  # noqa: T201 # as above


def _told(device: Device, word: str, rest: list[str]) -> None:
    match word:
        case "hold":
            device.state = json.loads(rest[1])
        case "set":
            device.state = {**device.state, rest[1]: json.loads(rest[2])}
        case "keep":
            device.kept.add(rest[1])
        case "hush":
            device.silent = rest[1] == "1"
        case "die":
            device.die()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
