"""Holdfast for programs: the shapes of the local API and a typed client. Imports nothing of the gateway itself."""
