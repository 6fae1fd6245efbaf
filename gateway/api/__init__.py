"""The local face over HTTP: what people and machines on site ask and change goes through here."""
