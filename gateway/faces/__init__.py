"""Faces: the gateway as a server for PLCs and SCADA. They show what :class:`gateway.latest.Latest` holds, and write through the gate."""
