"""Modbus over TLS: certificates of both sides are checked, and each refusal says which file to mend."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from protocols.contract import Misfit, Refused
from protocols.modbus.driver import TLS, make_line
from protocols.modbus.frames import read_request
from protocols.model import ScanStats
from tests.peers.certificates import Pki, make_pki
from tests.protocols.modbus.plc import Plc, device, listening, options, tag


def server_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert_file, pki.server.key_file)
    context.load_verify_locations(pki.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def line_options(port: int, **tls: Any) -> Any:  # Any: fields of Tls; the options of a connection
    one = {**device(tag("holding:0")), "scan_s": 0.05}
    return options("modbus-tls", port=port, timeout_s=2.0, tls={key: str(value) for key, value in tls.items()}, devices=[one])


async def test_both_certificates_are_right_and_answers_come(tmp_path: Path) -> None:
    pki, plc = make_pki(tmp_path), Plc(1)
    async with plc.serve(tls=server_context(pki)) as port:
        right = line_options(port, ca_file=pki.ca_file, cert_file=pki.client.cert_file, key_file=pki.client.key_file)
        assert (await TLS.probe(right)).ok


async def test_a_server_of_another_authority_is_a_misfit(tmp_path: Path) -> None:
    pki, other, plc = make_pki(tmp_path / "a"), make_pki(tmp_path / "b"), Plc(1)
    async with plc.serve(tls=server_context(pki)) as port:
        line = make_line(line_options(port, ca_file=other.ca_file), ScanStats())
        with pytest.raises(Misfit, match=r"not trusted.*tls\.ca_file"):
            await line.open()
        await line.close()


async def test_a_server_that_wants_a_certificate_refuses_without(tmp_path: Path) -> None:
    pki, plc = make_pki(tmp_path), Plc(1)
    async with plc.serve(tls=server_context(pki)) as port:
        report = await TLS.probe(line_options(port, ca_file=pki.ca_file))
        assert not report.ok
        line = make_line(line_options(port, ca_file=pki.ca_file), ScanStats())
        await line.open()  # TLS 1.3: the server says what it thinks of the client after the handshake
        with pytest.raises(Refused, match="cert_file and key_file"):
            await line.ask(read_request(1, bytes.fromhex("0300000001"), 2))
        await line.close()


async def test_a_port_without_tls_is_a_misfit(tmp_path: Path) -> None:
    pki, plc = make_pki(tmp_path), Plc(1)

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100)
        await reader.read()

    async with listening(plain) as port:
        line = make_line(line_options(port, ca_file=pki.ca_file), ScanStats())
        with pytest.raises(Misfit, match="speaks no TLS"):
            await line.open()
        await line.close()
    assert plc.connections == 0


async def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    report = await TLS.probe(line_options(1, ca_file=tmp_path / "none.pem"))
    assert not report.ok
    assert "none.pem" in report.findings[0]
