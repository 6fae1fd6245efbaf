"""What the local API takes and gives, as Structs: the gateway answers with these and the client reads them. One module a resource.

Times are integer nanoseconds UTC since 1970 and end in ``_ns``; durations are seconds and end in ``_s``. A value is JSON as
the journal's own form says it: NaN and infinities are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, bytes are
base64, a value whose quality is bad is null. Quality is an OPC UA status code.
"""
