"""From one row of logits to one token, and to log probabilities. NumPy on one row at a time: a row's token depends on nothing else.

The order of the rules: bias, penalties, the guide, temperature, top_k, min_p, top_p; each sees what the ones before it left. Exactly one
uniform number is drawn per token, so the same seed gives the same text whatever the batch.
"""

import numpy as np
from numpy.typing import NDArray

from server.sequence import Params, Scored, Sequence

Logits = NDArray[np.float32]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class BrokenLogits(ArithmeticError):
    """The model gave NaN, or infinity, where a number belongs."""

    def __init__(self) -> None:
        super().__init__("the model gave logits that are not finite")


def sample(logits: Logits, sequence: Sequence) -> int:
    """The next token of `sequence` from logits [V]; the likeliest one at temperature 0, the lowest id among equals."""
    adjusted = adjust(logits, sequence)
    if not np.isfinite(adjusted.max()):
        raise BrokenLogits
    if sequence.guide is not None:
        adjusted = np.where(sequence.guide.allowed(), adjusted, -np.inf)
    if sequence.params.temperature == 0:
        return int(adjusted.argmax())
    candidates, weights = shortlist(adjusted, sequence.params)
    return int(candidates[pick(weights, sequence.draw.random())])


def adjust(logits: Logits, sequence: Sequence) -> Floats:
    """Bias and penalties. Presence and frequency look at the output, repetition at the prompt too. float64 [V]."""
    params = sequence.params
    adjusted = logits.astype(np.float64)
    for token, bias in params.logit_bias:
        adjusted[token] += bias
    if params.repetition_penalty != 1:
        seen = np.unique(np.array([*sequence.prompt, *sequence.output], dtype=np.int64))
        adjusted[seen] = penalised(adjusted[seen], params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        said, times = np.unique(np.array(sequence.output, dtype=np.int64), return_counts=True)
        adjusted[said] -= params.presence_penalty + params.frequency_penalty * times
    return adjusted


def penalised(logits: Floats, penalty: float) -> Floats:
    """Repetition penalty (Keskar et al. 2019, arXiv 1909.05858): positive logits are divided, negative ones multiplied."""
    return np.where(logits > 0, logits / penalty, logits * penalty)


def shortlist(logits: Floats, params: Params) -> tuple[Ids, Floats]:
    """The tokens that may be drawn, and their weights (not normalised). Sorted by falling weight when any rule needs that."""
    with np.errstate(over="ignore"):  # a temperature near zero sends all but the best to -inf, which is right
        scaled = (logits - logits.max()) / params.temperature  # [V], best is 0
    ids = likeliest(scaled, params.top_k) if 0 < params.top_k < len(scaled) else np.flatnonzero(scaled > -np.inf)
    if params.min_p > 0:
        ids = ids[scaled[ids] >= np.log(params.min_p)]
    weights = np.exp(scaled[ids])
    if params.top_p < 1:
        kept = nucleus(weights, params.top_p)
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def likeliest(values: Floats, count: int) -> Ids:
    """The ids of the `count` largest values, best first, lower ids first among equals."""
    floor = np.partition(values, -count)[-count]
    above = np.flatnonzero(values >= floor)
    return above[np.argsort(-values[above], kind="stable")][:count]


def nucleus(weights: Floats, share: float) -> Ids:
    """The fewest places whose `weights` reach `share` of the sum, heaviest first; at least one.

    Weights below their even part of what may be missing are in sum too little to matter: the others are few, and sorted.
    """
    total = weights.sum()
    heavy = np.flatnonzero(weights >= (1 - share) * total / len(weights))
    order = heavy[np.argsort(-weights[heavy], kind="stable")]
    return order[: int((np.cumsum(weights[order]) < share * total).sum()) + 1]


def pick(weights: Floats, uniform: float) -> int:
    """The index that `uniform` in [0, 1) falls on when the weights are laid end to end."""
    laid = np.cumsum(weights)
    return min(int(np.searchsorted(laid, uniform * laid[-1], side="right")), len(weights) - 1)


def score(logits: Logits, token: int, alternatives: int) -> Scored:
    """The log probability of `token` under softmax(logits [V]), with the `alternatives` likeliest tokens."""
    wide = logits.astype(np.float64)
    peak = wide.max()
    if not np.isfinite(peak):
        raise BrokenLogits
    normaliser = peak + np.log(np.exp(wide - peak).sum())
    best = likeliest(wide, min(alternatives, len(wide))) if alternatives else np.arange(0)
    return Scored(token, float(wide[token] - normaliser), tuple((int(i), float(wide[i] - normaliser)) for i in best))
