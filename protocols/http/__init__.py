"""HTTP: devices that are polled, and devices that push (webhooks). Everything about aiohttp is known in this folder alone."""
