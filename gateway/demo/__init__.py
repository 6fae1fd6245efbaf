"""The demonstration: a simulated plant, a local broker, the gateway and the reference consumer in one process."""
