"""The appliance: one process, one event loop, from a driver's batch to an acknowledged delivery."""
