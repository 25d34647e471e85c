"""Angles by the kernel: the definition's in torch, and each token's bits its own."""

from dataclasses import replace

import pytest
import torch

import cpu_ops
from models.layers import Rotary
from models.spec import Rope
from tests.cpu_ops.test_attend import SPEC

DEVICE = torch.device("cpu")


@pytest.mark.parametrize("rope", [Rope(10000.0, 64), Rope(1e6, 128)])
def test_angles_are_the_definitions(rope: Rope) -> None:
    """Arguments are rounded alike; cosines of libraries differ in the last bit."""
    rotary = Rotary(replace(SPEC, rope=rope), DEVICE)
    positions = torch.tensor([0, 1, 7, 100, 4095, 131071])
    ours, theirs = cpu_ops.rotation(rotary, positions), rotary.at(positions)
    for one, other in ((ours.cos, theirs.cos), (ours.sin, theirs.sin)):
        torch.testing.assert_close(one, other, rtol=0, atol=1.2e-7)


def test_a_tokens_angles_do_not_depend_on_the_others() -> None:
    rotary = Rotary(SPEC, DEVICE)
    positions = torch.arange(300)
    together = cpu_ops.rotation(rotary, positions)
    for token in (0, 7, 299):
        alone = cpu_ops.rotation(rotary, positions[token : token + 1])
        assert torch.equal(alone.cos[0], together.cos[token])
        assert torch.equal(alone.sin[0], together.sin[token])
