"""What devices say they have: samples of RFC 6690, and what is no link format."""

from __future__ import annotations

from protocols.coap.linkformat import MAX_LINKS, links_of


def test_the_samples_of_the_standard_are_read() -> None:
    """RFC 6690, 5."""
    sample = (
        b'</sensors>;ct=40;title="Sensor Index",</sensors/temp>;rt="temperature-c";if="sensor",'
        b'</t>;anchor="/sensors/temp";rel="alternate",<http://www.example.com/sensors/t123>;rel="describedby",</obs>;obs;ct="0 50"'
    )
    links = links_of(sample)
    assert [link.path for link in links] == ["/sensors", "/sensors/temp", "/t", "/obs"], "what is elsewhere is not the device's"
    assert links[0].attributes == {"ct": "40", "title": "Sensor Index"}
    assert links[1].attributes["rt"] == "temperature-c"
    assert (links[3].is_observable, links[3].formats, links[0].is_observable) == (True, (0, 50), False)


def test_quotes_and_commas_in_a_title_part_nothing() -> None:
    (first, second) = links_of(b'</a>;title="one, \\"two\\"; </c>";rt=x,</b>')
    assert first.attributes == {"title": 'one, "two"; </c>', "rt": "x"}
    assert second.path == "/b"


def test_what_cannot_be_read_ends_the_reading() -> None:
    assert [link.path for link in links_of(b"</a>;rt=x,nonsense,</b>")] == ["/a"]
    assert links_of(b"") == links_of(b"\xff\xfe<") == links_of(b"<html>") == []


def test_no_list_is_too_long() -> None:
    assert len(links_of(b",".join(b"</%d>" % at for at in range(5000)))) == MAX_LINKS
    assert links_of(b'</a>;title="' + b"x" * 100_000) != []
