"""Numbers that make no sense are refused in one line, before anything is measured."""

import argparse

import pytest

from benchmarks import decode, idle
from benchmarks.arguments import positive, positive_whole


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "1e3", "\u0663", "+2"])
def test_counts_are_whole_and_from_one(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        positive_whole(text)
    assert positive_whole("12") == 12


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "", "x"])
def test_lengths_of_time_are_some_and_end(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="greater than 0"):
        positive(text)
    assert positive("0.5") == 0.5


@pytest.mark.parametrize(("main", "words"), [(decode.main, ["--rounds", "0"]), (idle.main, ["--seconds", "0"])])
def test_the_option_is_named(main: object, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert words[0] in capsys.readouterr().err.splitlines()[-1]
