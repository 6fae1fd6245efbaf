"""Modbus: TCP, RTU over a serial line, RTU over TCP, and TLS. See README.md; the drivers are in ``driver.py``."""
