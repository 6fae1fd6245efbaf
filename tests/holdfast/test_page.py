"""The examples of docs/how-to/use-the-api-from-python.md run as they stand, in their order, against a gateway that runs."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

from gateway.identity.principal import Role
from tests.gateway.api.conftest import Running, plant, server

__all__ = ["plant", "server"]

PAGE: Final = Path(__file__).parents[2] / "docs/how-to/use-the-api-from-python.md"
TEXT: Final = PAGE.read_text()


async def test_the_page_says_what_works(plant: Running) -> None:
    ca = Path(plant.appliance.authority.certificate_file)
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(await asyncio.to_thread(ca.read_text))).hexdigest()
    known = {"URL": plant.url, "TOKEN": await plant.token(Role.OPERATOR), "CA": str(ca), "FINGERPRINT": fingerprint}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    program = "".join(f"{name} = {value!r}\n" for name, value in known.items()) + "\n".join(blocks)
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=PAGE.parents[2]
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert said[:4] == ["edge", "230.5 V good", "meter-1 answers", "meter-2 answers"]
    assert said[4] == "verified"
    assert said[5].startswith(("meter-1 ", "meter-2 "))
    assert said[6].startswith("no device is called 'meter-9'")
