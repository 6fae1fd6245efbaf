"""OPC UA client: reads, subscribes, writes and browses servers over opc.tcp. See README.md."""
