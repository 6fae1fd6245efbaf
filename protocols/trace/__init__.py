"""Recording what passes on a wire, for every driver: frames, a bounded ring of them, and files that Wireshark reads.

This room knows no protocol. A driver hands what it sends and hears to a :class:`~protocols.trace.wire.Tap`, where one is
set; the driver's own trace module cuts that into frames and says which of them are trouble.
"""
