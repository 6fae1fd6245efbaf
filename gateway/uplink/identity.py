"""Who an uplink is to its broker."""

from __future__ import annotations

from gateway.config.model import Gateway, MqttUplink


def client_id(options: MqttUplink, gateway: Gateway) -> str:
    """The MQTT client id of an uplink: its own setting, or one that is the same after every restart."""
    return options.client_id or f"holdfast-{gateway.group}-{gateway.name}-{options.name}"
