"""MQTT in: devices that publish to a broker."""
