"""Pushing over TLS, by aiocoap's client; a certificate that cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from protocols.coap.server import SERVER
from protocols.contract import Misfit
from tests.peers.certificates import make_pki
from tests.peers.coap import CoapPushers
from tests.protocols.coap.test_libcoap import CLOCK, reading, server


async def test_a_push_over_tls_is_taken(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki", server_names=("localhost",))
    (tmp_path / "token").write_text("c0ffee")
    tls = {"cert_file": str(pki.server.cert_file), "key_file": str(pki.server.key_file)}
    options = server(tmp_path / "token", schemes=["coaps+tcp"], tls=tls)
    options = msgspec.structs.replace(options, tls_port=options.listen_port + 1)
    url = f"coaps+tcp://localhost:{options.tls_port}/one/state"
    with CoapPushers({f"{url.rsplit('/', 2)[0]}/*": {"tlscert": {"certfile": str(pki.ca_file)}}}) as peer:
        async with reading(SERVER, options) as reader:
            peer.set(url, b'{"level": 3.75}', 50)
            await reader.until(lambda: reader.value("level") == 3.75)
            await reader.until(lambda: any(word.startswith("2.04=") for word in peer.ask("answers")))


async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("c0ffee")
    options = server(tmp_path / "token", schemes=["coaps+tcp"], tls={"cert_file": "/nowhere.pem"})
    with pytest.raises(Misfit, match="nowhere"):
        async with SERVER.open(options, clock=CLOCK):
            pass
