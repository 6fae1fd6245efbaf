"""The gateway's own certificate authority: its API's certificate and those of devices and people."""

from __future__ import annotations

from gateway.authority.authority import Authority
from gateway.authority.certificates import MIGRATIONS, Certificate, Certificates

__all__ = ["MIGRATIONS", "Authority", "Certificate", "Certificates"]
