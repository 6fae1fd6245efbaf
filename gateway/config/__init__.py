"""The Structs that are the configuration, and what derives from them: loading, checking, schema, sample, reference.

``load`` reads a document, ``check`` judges it without touching anything (``judge`` does both), ``check_files`` looks at the
files it names, ``compare`` says what a reload has to do; ``schema`` and ``sample`` are drawn from the same Structs.
"""

from gateway.config.check import check
from gateway.config.compare import Change, Parts, compare
from gateway.config.document import Located
from gateway.config.files import check_files
from gateway.config.load import judge, load, locate
from gateway.config.model import Site
from gateway.config.places import resolve, state_folder
from gateway.config.sample import sample
from gateway.config.schema import schema

__all__ = [
    "Change",
    "Located",
    "Parts",
    "Site",
    "check",
    "check_files",
    "compare",
    "judge",
    "load",
    "locate",
    "resolve",
    "sample",
    "schema",
    "state_folder",
]
