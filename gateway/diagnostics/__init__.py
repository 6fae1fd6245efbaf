"""Diagnostics: the support bundle, and jobs that look at a line: traces, scans, the search for a number."""
