"""Sizes as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.units import format_bytes, format_rate, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("8GB", 8 * 10**9), ("8GiB", 8 * 2**30), ("7.5 gib", 8053063680), ("0.5MB", 500_000), ("1B", 1), (" 2 TiB ", 2 * 2**40)],
)
def test_decimal_and_binary_units_differ_as_they_should(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "complaint"), [("8", "no unit"), ("-1GB", "not a size"), ("8XB", "unknown unit"), ("", "not a size"), ("nanGB", "not a size")]
)
def test_what_is_not_a_size_says_why(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_printed_size_reads_back_to_three_digits(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.006)


def test_seconds_choose_their_unit() -> None:
    assert [format_seconds(s) for s in (2.5, 0.0125, 0.0000123, 5e-9)] == ["2.5 s", "12.5 ms", "12.3 µs", "5 ns"]


def test_rates_keep_three_digits_and_no_exponent() -> None:
    assert [format_rate(rate) for rate in (2034.5, 16.72, 0.3456)] == ["2,034", "16.7", "0.346"]
