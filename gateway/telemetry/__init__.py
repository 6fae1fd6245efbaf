"""Metrics and logs about the gateway itself."""
