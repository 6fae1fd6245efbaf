"""Who is there and what does it say about itself: OPC UA servers, CoAP hosts, and what announces itself by mDNS.

Each finder gives :class:`protocols.contract.Candidate`; nothing here reads a value, logs in, or asks more than one host at a time.
A finder is no driver: it speaks just as much of a protocol as a greeting takes.
"""
