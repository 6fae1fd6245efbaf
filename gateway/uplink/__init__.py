"""Readers of the journal that deliver to somebody."""
