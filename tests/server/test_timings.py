"""Timings under llama-server's names, on a clock that the test moves."""

import math

from hypothesis import given
from hypothesis import strategies as st

from models.tokenizer import Tokenizer
from server.sequence import Params, Sequence, Times
from server.timings import timings, told
from tests.server.fakes import build_sequence


def finished(tokenizer: Tokenizer, prompt: int, written: int, times: Times) -> Sequence:
    sequence, _ = build_sequence(tokenizer, [0] * prompt, Params())
    sequence.output = [0] * written
    sequence.times = times
    return sequence


def test_rates_leave_the_first_token_out(tokenizer: Tokenizer) -> None:
    found = timings([finished(tokenizer, 100, 11, Times(9.0, 10.0, 12.0, 17.0))], 3.0)
    assert found == {
        "cache_n": 0,
        "prompt_n": 100,
        "prompt_ms": 2000.0,
        "prompt_per_token_ms": 20.0,
        "prompt_per_second": 50.0,
        "predicted_n": 11,
        "predicted_ms": 5000.0,
        "predicted_per_token_ms": 500.0,
        "predicted_per_second": 2.0,
        "expected_per_second": 3.0,
    }


def test_choices_are_added_up_and_rates_are_of_one(tokenizer: Tokenizer) -> None:
    pair = [finished(tokenizer, 10, 11, Times(0.0, 1.0, 2.0, 4.0)), finished(tokenizer, 10, 21, Times(0.0, 1.0, 3.0, 8.0))]
    found = timings(pair, None)
    assert (found["prompt_n"], found["prompt_ms"]) == (20, 3000.0)
    assert (found["predicted_n"], found["predicted_ms"], found["predicted_per_second"]) == (32, 7000.0, 30 / 7)


def test_tokens_that_were_not_read_again_are_no_part_of_the_prompts_speed(tokenizer: Tokenizer) -> None:
    reader = finished(tokenizer, 100, 2, Times(0.0, 1.0, 2.0, 3.0))
    reader.reused = 90
    found = timings([reader], None)
    assert (found["cache_n"], found["prompt_n"], found["prompt_per_second"]) == (90, 10, 10.0)


def test_the_log_is_told_what_was_expected_beside_what_was_measured(tokenizer: Tokenizer) -> None:
    done = [finished(tokenizer, 100, 11, Times(9.0, 10.0, 12.0, 17.0))]
    assert told(timings(done, 3.0)) == "11 tokens at 2 tokens/s, expected 3 for one sequence alone"
    assert told(timings(done, None)) == "11 tokens at 2 tokens/s"
    for written, words in ((0, "0 tokens"), (1, "1 token")):
        assert told(timings([finished(tokenizer, 100, written, Times(9.0, 10.0, 12.0, 12.0))], 3.0)) == words


@given(prompt=st.integers(1, 5), written=st.integers(0, 5), spans=st.tuples(st.floats(0, 9), st.floats(0, 9)), ran=st.booleans())
def test_nothing_is_ever_negative_or_not_a_number(
    tokenizer: Tokenizer, prompt: int, written: int, spans: tuple[float, float], ran: bool
) -> None:
    times = Times(0.5, 1.0, 1.0 + spans[0], 1.0 + spans[0] + spans[1]) if ran else Times()
    found = timings([finished(tokenizer, prompt, written, times)], 1.0)
    assert all(value is not None and math.isfinite(value) and value >= 0 for value in found.values())
