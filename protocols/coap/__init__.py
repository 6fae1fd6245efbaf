"""CoAP: a client for devices that are asked and observed, and a server for devices that push."""
