"""Speaks to the field. Nothing here knows of ``gateway``: each driver is usable from a notebook."""
