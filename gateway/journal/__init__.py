"""The durable record of what happened: append-only, bounded, self-checking; many readers, each with a cursor."""

from gateway.journal.archive import Archive
from gateway.journal.journal import Journal, NotStored, Reader
from gateway.journal.ledger import LaneLedger, Ledger, ReaderLane, VerifyReport
from gateway.journal.record import DropReason, Lane, Lost, Record
from gateway.journal.segment import StorageError
from gateway.journal.store import LOCK, JournalBusy

__all__ = [
    "LOCK",
    "Archive",
    "DropReason",
    "Journal",
    "JournalBusy",
    "Lane",
    "LaneLedger",
    "Ledger",
    "Lost",
    "NotStored",
    "Reader",
    "ReaderLane",
    "Record",
    "StorageError",
    "VerifyReport",
]
