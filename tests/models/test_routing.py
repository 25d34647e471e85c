"""Tokens find their experts, by whatever score."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.routing import weights_of
from models.spec import Routing

SCORES = pytest.mark.parametrize("score", ["softmax", "sigmoid"])


@SCORES
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_largest_are_chosen_and_the_others_get_nothing(score: str, data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 9))
    count = data.draw(st.integers(1, experts))
    logits = torch.randn(data.draw(st.integers(0, 4)), experts, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    routing = Routing("softmax" if score == "softmax" else "sigmoid", normalised=True)
    weights = weights_of(logits, routing, count)
    assert ((weights > 0).sum(1) == count).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(logits)))
    for row, chosen in zip(logits, weights > 0, strict=True):
        assert count == experts or row[chosen].min() >= row[~chosen].max()


def test_what_is_not_normalised_keeps_its_share_of_all() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    weights = weights_of(logits, Routing("softmax", normalised=False), 2)
    torch.testing.assert_close(weights[0, [1, 2]], logits.softmax(1)[0, [1, 2]])
    assert weights[0, [0, 3]].tolist() == [0.0, 0.0]


def test_normalised_softmax_is_the_softmax_of_the_chosen() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    weights = weights_of(logits, Routing(), 2)
    torch.testing.assert_close(weights[0, [1, 2]], torch.tensor([3.0, 2.0]).softmax(0))


def test_a_large_logit_does_not_overflow() -> None:
    (weights,) = weights_of(torch.tensor([[1e4, -1e4, 0.0]]), Routing("sigmoid"), 2).tolist()
    assert weights == pytest.approx([2 / 3, 0.0, 1 / 3])
