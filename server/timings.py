"""Timings of a request under llama-server's names. Every value is a finite number that is not negative."""

from collections.abc import Iterable

from models.units import format_rate
from server.sequence import Sequence

Timings = dict[str, float | int | None]


def timings(sequences: Iterable[Sequence], expected_per_second: float | None) -> Timings:
    """Tokens and milliseconds are summed over the choices of a request, so a rate is what one of them saw on the average.

    `cache_n` tokens of the prompts were not read, their keys and values being there, and `prompt_n` were.
    The first token comes out of the prompt, so a rate over n tokens counts n - 1 steps, and is 0.0 for one token.
    `expected_per_second` is what the placement predicted for one sequence alone; None when there was no prediction.
    """
    done = [sequence for sequence in sequences if sequence.times.first]
    cache_n, predicted_n = sum(one.reused for one in done), sum(len(one.output) for one in done)
    prompt_n = sum(len(one.prompt) for one in done) - cache_n
    steps = sum(max(len(one.output) - 1, 0) for one in done)
    prompt_ms = 1e3 * sum(one.times.first - one.times.started for one in done)
    predicted_ms = 1e3 * sum(one.times.last - one.times.first for one in done)
    return {
        "cache_n": cache_n,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": ratio(prompt_ms, prompt_n),
        "prompt_per_second": ratio(1e3 * prompt_n, prompt_ms),
        "predicted_n": predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": ratio(predicted_ms, steps),
        "predicted_per_second": ratio(1e3 * steps, predicted_ms),
        "expected_per_second": expected_per_second,
    }


def told(found: Timings) -> str:
    """What was measured beside what was expected, for a line in the log. One token has no rate."""
    written, expected = found["predicted_n"] or 0, found["expected_per_second"]
    if written < 2:
        return f"{written} token{'' if written else 's'}"
    line = f"{written} tokens at {format_rate(found['predicted_per_second'] or 0.0)} tokens/s"
    return line if expected is None else f"{line}, expected {format_rate(expected)} for one sequence alone"


def ratio(above: float, below: float) -> float:
    return above / below if below > 0 else 0.0
