"""OSCORE: the test vectors of RFC 8613, appendix C, and sequence numbers that are never used twice, whatever happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protocols.coap.config import Oscore
from protocols.coap.message import Message, Option, decode_udp, encode_udp, ordered
from protocols.coap.oscore import AHEAD, Challenge, Context, Sealed, hint_of
from protocols.contract import Misfit
from protocols.secret import FromFile

SECRET = "0102030405060708090a0b0c0d0e0f10"
SALT = "9e7ca92223786340"


def context(folder: Path, sender: str = "", recipient: str = "01", state: str = "client", secret: str = SECRET) -> Context:
    (folder / "secret").write_text(secret)
    (folder / state).mkdir(exist_ok=True)
    keys = Oscore(sender_id=sender, recipient_id=recipient, master_secret=FromFile(path=str(folder / "secret")), master_salt=SALT)
    return Context(keys, str(folder / state), "device one")


async def opened(made: Context) -> Context:
    made.open()
    await made.ready()
    return made


REQUEST = Message(code=1, options=ordered((Option.URI_PATH, b"tv1")), token=b"J", type=0, id=7)


async def test_a_request_is_sealed_as_the_standard_has_it(tmp_path: Path) -> None:
    """RFC 8613, C.4: sequence number 20."""
    client = await opened(context(tmp_path))
    client.numbers.next = 20
    request = decode_udp(bytes.fromhex("44015d1f00003974396c6f63616c686f737483747631"))
    sealed, _ = client.seal(request)
    assert encode_udp(sealed).hex() == "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e"
    await client.leave()


async def pair(folder: Path) -> tuple[Context, Context]:
    """A client and a server that have met: the server knows the client's messages to be fresh."""
    client = await opened(context(folder))
    server = await opened(context(folder, "01", "", "server"))
    sealed, binding = client.seal(REQUEST)
    with pytest.raises(Challenge) as caught:
        server.open_sealed(sealed)
    answer, _ = client.open_sealed(caught.value.answer, binding)
    echo = answer.first(Option.ECHO)
    assert echo is not None
    again, _ = client.seal(Message(code=1, options=REQUEST.but((Option.ECHO, echo))))
    server.open_sealed(again)
    return client, server


async def test_a_request_and_its_answer_pass_and_a_replay_does_not(tmp_path: Path) -> None:
    client, server = await pair(tmp_path)
    sealed, binding = client.seal(REQUEST)
    inner, answers = server.open_sealed(sealed)
    assert (inner.path, inner.code) == (("tv1",), 1)
    with pytest.raises(Sealed, match="replay"):
        server.open_sealed(sealed)
    answer, _ = server.seal(Message(code=0x45, payload=b"21.5"), answers)
    assert client.open_sealed(answer, binding)[0].payload == b"21.5"
    _, other = client.seal(REQUEST)
    with pytest.raises(Sealed):
        client.open_sealed(answer, other)  # it answers another request
    await client.leave()
    await server.leave()


async def test_a_changed_bit_or_another_key_opens_nothing(tmp_path: Path) -> None:
    client, server = await pair(tmp_path)
    sealed, _ = client.seal(REQUEST)
    for at in range(len(sealed.payload)):
        spoilt = sealed.payload[:at] + bytes((sealed.payload[at] ^ 1,)) + sealed.payload[at + 1 :]
        with pytest.raises(Sealed):
            server.open_sealed(Message(code=sealed.code, options=sealed.options, payload=spoilt))
    stranger = await opened(context(tmp_path, state="stranger", secret="ff" * 16))
    with pytest.raises(Sealed):
        server.open_sealed(stranger.seal(REQUEST)[0])
    for each in (client, server, stranger):
        await each.leave()


async def test_no_number_is_used_twice_however_a_life_ends(tmp_path: Path) -> None:
    """Each life ends without a word, as by a power cut: the file's content is all that is left of it."""
    used: set[bytes] = set()
    for _ in range(4):
        life = await opened(context(tmp_path))
        for _ in range(AHEAD // 2 + 7):
            await life.ready()
            sealed, _ = life.seal(REQUEST)
            option = sealed.first(Option.OSCORE)
            assert option is not None
            assert option not in used
            used.add(option)
        if life.numbers._writing is not None:
            await life.numbers._writing
        os.close(life.numbers._file)  # no farewell
        life.numbers._file = -1


async def test_two_gateways_cannot_use_the_same_keys(tmp_path: Path) -> None:
    first = await opened(context(tmp_path))
    with pytest.raises(Misfit, match="state_folder"):
        context(tmp_path).open()
    await first.leave()
    again = await opened(context(tmp_path))
    assert again.numbers.next == AHEAD
    await again.leave()


async def test_a_file_that_holds_no_number_is_not_guessed_at(tmp_path: Path) -> None:
    life = await opened(context(tmp_path))
    await life.leave()
    (file,) = (tmp_path / "client").iterdir()
    file.write_text("what?")
    with pytest.raises(Misfit, match="new keys"):
        context(tmp_path).open()


def test_the_secret_is_in_no_text(tmp_path: Path) -> None:
    with pytest.raises(Misfit) as caught:
        context(tmp_path, secret="canary, not hexadecimal")
    assert "canary" not in str(caught.value)
    with pytest.raises(Misfit, match="shorter"):
        context(tmp_path, secret="0102")
    assert SECRET not in context(tmp_path).numbers._path.name


@pytest.mark.parametrize("option", [b"\x10", b"\x11", b"\x06abcdef", b"\xff", b"\x02a", b"\x10\x05ab"])
def test_a_broken_option_is_refused(option: bytes) -> None:
    with pytest.raises(Sealed):
        hint_of(option)
