"""The Structs that are the configuration, and what derives from them: loading, checking, schema, sample, reference."""
