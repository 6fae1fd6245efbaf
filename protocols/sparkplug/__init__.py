"""Sparkplug B 3.0 as bytes and values: payloads, topics, session state. No socket, no clock: see README.md."""
