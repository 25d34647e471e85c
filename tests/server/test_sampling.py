"""Sampling against slow definitions of each rule, and against the probabilities it should follow."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from models.tokenizer import Tokenizer
from server.sampling import BrokenLogits, Floats, Logits, sample, score, shortlist
from server.sequence import Params, Sequence
from tests.server.fakes import build_sequence

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -4.0], dtype=np.float32)
rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12).map(lambda row: np.array(row, dtype=np.float32))


def sequence_of(
    tokenizer: Tokenizer, params: Params, *, prompt: tuple[int, ...] = (0,), output: tuple[int, ...] = (), seed: int = 0
) -> Sequence:
    sequence, _ = build_sequence(tokenizer, list(prompt), params, seed=seed)
    sequence.output += output
    return sequence


def softmax(logits: Floats | Logits, temperature: float = 1.0) -> Floats:
    powers = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return np.asarray(powers / powers.sum())


def slow_shares(logits: Logits, params: Params) -> dict[int, float]:
    """The rules as one would explain them: rank the tokens, strike some out, rule after rule; probabilities of those left."""
    ranked = sorted(enumerate(softmax(logits, params.temperature)), key=lambda entry: (-entry[1], entry[0]))
    if params.top_k:
        ranked = ranked[: params.top_k]
    ranked = [entry for entry in ranked if entry[1] >= params.min_p * ranked[0][1]]
    kept: list[tuple[int, float]] = []
    covered, total = 0.0, sum(share for _, share in ranked)
    for entry in ranked:
        kept.append(entry)
        covered += entry[1]
        if covered >= params.top_p * total:
            break
    return {token: share / sum(share for _, share in kept) for token, share in kept}


@given(
    logits=rows,
    temperature=st.sampled_from([0.25, 1.0, 2.5]),
    top_k=st.integers(0, 13),
    min_p=st.sampled_from([0.0, 0.03, 0.5, 1.0]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.93, 1.0]),
)
def test_the_shortlist_is_the_slow_definition(logits: Logits, temperature: float, top_k: int, min_p: float, top_p: float) -> None:
    logits = (np.round(logits, 1) + np.arange(len(logits)) / 64).astype(np.float32)  # no near ties, where rounding decides
    params = Params(temperature=temperature, top_k=top_k, min_p=min_p, top_p=top_p)
    ids, weights = shortlist(logits.astype(np.float64), params)
    wanted = slow_shares(logits, params)
    found = dict(zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True))
    doubtful = {token for token in wanted.keys() ^ found.keys() if (wanted | found)[token] < 1e-9}
    assert wanted.keys() ^ found.keys() == doubtful
    assert all(math.isclose(found[token], wanted[token], rel_tol=1e-6, abs_tol=1e-9) for token in wanted.keys() & found.keys())


@pytest.mark.parametrize(
    "params", [Params(), Params(temperature=0.5), Params(temperature=3.0), Params(top_k=3), Params(top_p=0.8), Params(min_p=0.2)]
)
def test_draws_follow_the_probabilities(tokenizer: Tokenizer, params: Params) -> None:
    sequence = sequence_of(tokenizer, params, seed=11)
    shares = slow_shares(LOGITS, params)
    drawn = np.bincount([sample(LOGITS, sequence) for _ in range(4000)], minlength=len(LOGITS))
    assert {int(token) for token in np.flatnonzero(drawn)} <= shares.keys()
    expected = [4000 * shares[token] for token in sorted(shares)]
    assert chisquare(drawn[sorted(shares)], expected).pvalue > 0.001


def test_temperature_zero_takes_the_likeliest_and_the_lowest_of_equals(tokenizer: Tokenizer) -> None:
    sequence = sequence_of(tokenizer, Params(temperature=0))
    assert sample(np.array([1, 3, 3, 2], dtype=np.float32), sequence) == 1
    assert sample(np.array([0], dtype=np.float32), sequence) == 0


@pytest.mark.parametrize(
    "params", [Params(temperature=1e-30), Params(temperature=5e-324), Params(top_p=0.0), Params(top_k=1), Params(min_p=1.0)]
)
def test_every_rule_at_its_strictest_leaves_the_likeliest(tokenizer: Tokenizer, params: Params) -> None:
    sequence = sequence_of(tokenizer, params)
    assert {sample(LOGITS, sequence) for _ in range(50)} == {0}


def test_a_bias_bans_and_forces(tokenizer: Tokenizer) -> None:
    banned = sequence_of(tokenizer, Params(temperature=0, logit_bias=((0, -100.0),)))
    assert sample(LOGITS, banned) == 1
    forced = sequence_of(tokenizer, Params(logit_bias=((5, 100.0),)))
    assert {sample(LOGITS, forced) for _ in range(20)} == {5}


def test_presence_and_frequency_look_at_the_output_only(tokenizer: Tokenizer) -> None:
    presence = Params(temperature=0, presence_penalty=1.5)
    assert sample(LOGITS, sequence_of(tokenizer, presence, prompt=(0, 0))) == 0
    assert sample(LOGITS, sequence_of(tokenizer, presence, output=(0, 0, 0))) == 1
    frequency = Params(temperature=0, frequency_penalty=0.4)
    assert sample(LOGITS, sequence_of(tokenizer, frequency, output=(0, 0))) == 0
    assert sample(LOGITS, sequence_of(tokenizer, frequency, output=(0, 0, 0))) == 1
    assert sample(LOGITS, sequence_of(tokenizer, replace(frequency, frequency_penalty=-0.5), output=(1, 1, 1))) == 1


def test_the_repetition_penalty_looks_at_the_prompt_too_and_pushes_both_signs_down(tokenizer: Tokenizer) -> None:
    params = Params(temperature=0, repetition_penalty=2.5)
    assert sample(LOGITS, sequence_of(tokenizer, params, prompt=(0,))) == 1
    negative = np.array([-1.0, -1.5], dtype=np.float32)
    assert sample(negative, sequence_of(tokenizer, params, prompt=(0,))) == 1


def test_the_same_seed_draws_the_same_and_another_does_not(tokenizer: Tokenizer) -> None:
    def draws(seed: int) -> list[int]:
        sequence = sequence_of(tokenizer, Params(temperature=2.0), seed=seed)
        return [sample(LOGITS, sequence) for _ in range(30)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(-(2**63)) != draws(2**63 - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_row_is_an_error(tokenizer: Tokenizer, value: float) -> None:
    broken = np.array([0.0, value], dtype=np.float32)
    with pytest.raises(BrokenLogits):
        sample(broken, sequence_of(tokenizer, Params()))
    with pytest.raises(BrokenLogits):
        score(broken, 0, 1)


@given(logits=rows, data=st.data())
def test_a_score_is_the_log_of_softmax(logits: Logits, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(logits) - 1))
    alternatives = data.draw(st.integers(0, 14))
    found = score(logits, token, alternatives)
    wanted = np.log(softmax(logits))
    assert found.token == token
    assert math.isclose(found.logprob, wanted[token], abs_tol=1e-9)
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:alternatives]
    assert [i for i, _ in found.top] == ranked
    assert np.allclose([logprob for _, logprob in found.top], wanted[ranked])
