"""Text that a terminal may be given: whatever comes in, what goes out prints, and fits."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tui.plain import ascii_only, clean, cut, table, width_of, wrapped

UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ANYTHING = st.text(st.characters())


@given(ANYTHING)
def test_what_is_clean_prints_and_stays_as_it_is(text: str) -> None:
    shown = clean(text)
    assert not {unicodedata.category(each) for each in shown} & UNSEEN
    assert clean(shown) == shown
    assert ascii_only(shown).isascii()


def test_what_a_terminal_would_obey_is_shown_as_its_code() -> None:
    assert clean("a\x1b[2J\x9b31m\x00\r\n\u202eb\u2028") == "a\\x1b[2J\\x9b31m\\x00\\x0d\\x0a\\u202eb\\u2028"
    assert clean("21.5 °C, 3 m³, Grüße, 温度") == "21.5 °C, 3 m³, Grüße, 温度"
    assert clean("z" + "\u0301" * 9).count("\u0301") == 2, "marks that would paint over the lines around"
    assert ascii_only("21.5 °C, 3 m³, Grüße, Ω") == "21.5 deg C, 3 m3, Grusse, Ohm"


@given(st.lists(st.tuples(ANYTHING, ANYTHING, ANYTHING), max_size=8), st.integers(10, 120))
def test_a_table_fits(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = table(rows, width)
    assert len(lines) == len(rows)
    assert all(width_of(line) <= width for line in lines)


@given(ANYTHING, st.integers(20, 120))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    lines = wrapped(text, width, "  ")
    assert all(width_of(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(clean(text).split())


@given(ANYTHING, st.integers(0, 40))
def test_what_is_cut_fits(text: str, width: int) -> None:
    assert width_of(cut(clean(text), width)) <= width
