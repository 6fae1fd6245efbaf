"""The durable record of what happened: append-only, bounded, self-checking; many readers, each with a cursor."""
