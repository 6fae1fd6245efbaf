"""Holdfast driver for instruments that speak SCPI over TCP: multimeters, power supplies, chargers, climate chambers."""
