"""Digest: the examples of RFC 7616, the choice between challenges, and what is no challenge."""

from __future__ import annotations

import pytest

from protocols.http.digest import Challenge, Prover, answer, strongest

REALM = "http-auth@example.org"
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
CLIENT_NONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [("MD5", "8ca523f5e9506fed4657c9700eebdbec"), ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1")],
)
def test_the_examples_of_the_standard(algorithm: str, response: str) -> None:
    """RFC 7616, 3.9.1."""
    challenge = Challenge(REALM, NONCE, algorithm, "auth", OPAQUE, hides_user=False)
    said = answer(challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", b"", 1, CLIENT_NONCE)
    assert f'response="{response}"' in said
    assert f"algorithm={algorithm}, " in said
    assert "qop=auth, nc=00000001, " in said
    assert 'uri="/dir/index.html"' in said


def test_a_server_of_the_old_standard_gets_what_it_knows() -> None:
    """RFC 2069 as corrected (errata 749): no qop, no count."""
    challenge = Challenge("testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "MD5", "", None, hides_user=False)
    said = answer(challenge, "Mufasa", "CircleOfLife", "GET", "/dir/index.html", b"", 1, "x")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in said
    assert "nc=" not in said


def test_the_user_is_hidden_where_the_server_wants_it() -> None:
    """RFC 7616, 3.9.2: the name is hashed, so that one that is not ASCII can be sent."""
    challenge = Challenge("api@example.org", "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", "SHA-512-256", "auth", None, hides_user=True)
    said = answer(challenge, "Jäsøn Doe", "Secret, or not?", "GET", "/doe.json", b"", 1, "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm")
    assert "userhash=true" in said
    assert (
        'username="793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"' in said
    )  # errata 4897: SHA-512/256 as FIPS 180-4 has it


def test_of_several_challenges_the_strongest_is_answered() -> None:
    offers = [
        f'Digest realm="a, b", nonce="n{at}", algorithm={algorithm}, qop="auth"'
        for at, algorithm in enumerate(["MD5", "SHA-256", "md5-sess"])
    ]
    for headers in (
        offers,
        [", ".join(offers)],
        ['Basic realm="x"', *reversed(offers)],
        [f'Basic realm="x", {", ".join(offers)}, Negotiate'],
    ):
        found = strongest(headers)
        assert found is not None
        assert (found.algorithm, found.nonce, found.realm) == ("SHA-256", "n1", "a, b")


@pytest.mark.parametrize(
    "header",
    [
        "", "Basic realm=x",
        "Digest", 'Digest realm="x"', 'Digest nonce=""', 'Digest nonce="n", algorithm=SHA-1', 'Digest nonce="n", qop="other"',
        'Digest nonce="n\x01"', 'Digest nonce="é"', "Digest nonce", 'Digest nonce="never ends', "=,=,=", "Negotiate abc==",
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_no_challenge(header: str) -> None:
    assert strongest([header]) is None


def test_the_same_challenge_is_not_answered_twice_in_vain() -> None:
    """A wrong password is told by the server's refusal of its own challenge; a new one (stale, or a second connection) is answered."""
    prover = Prover("user", "password")
    offer = ['Digest realm="x", nonce="one", qop="auth"']
    assert prover.proof("GET", "/", b"") == ""
    assert prover.learn(offer, "")
    first = prover.proof("GET", "/", b"")
    assert not prover.learn(offer, first)
    assert prover.learn(offer, ""), "sent before the challenge was known"
    assert "nc=00000002" in prover.proof("GET", "/", b"")
    assert prover.learn(['Digest realm="x", nonce="two", qop="auth"'], first)
    assert "nc=00000001" in prover.proof("GET", "/", b"")
