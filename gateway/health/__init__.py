"""Whether the gateway is well: what ``holdfast health`` and ``/readyz`` say of it, and what an upgrade waits for."""
