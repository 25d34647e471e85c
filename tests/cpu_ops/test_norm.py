"""The norm beside its definition in float64, and the promise that a token's bits are its own."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cpu_ops
from cpu_ops.topology import set_threads
from models import layers
from models.layers import rms_norm


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(0, 20), width=st.integers(1, 300), seed=st.integers(0, 99))
def test_any_shape(tokens: int, width: int, seed: int) -> None:
    x, weight = random(tokens, width, seed=seed), random(width, seed=seed + 1)
    expected = rms_norm(x.double(), weight.double(), 1e-5)
    torch.testing.assert_close(cpu_ops.norm(x, weight, 1e-5).double(), expected, rtol=2e-6, atol=1e-6)


def test_a_tokens_bits_are_its_own_on_any_threads() -> None:
    """Wide enough for the parallel loop; the single token goes through the serial one."""
    x, weight = random(16, 4096), random(4096)
    together = cpu_ops.norm(x, weight, 1e-5)
    set_threads(1)
    assert torch.equal(cpu_ops.norm(x, weight, 1e-5), together)
    set_threads()
    for token in range(16):
        assert torch.equal(cpu_ops.norm(x[token : token + 1], weight, 1e-5)[0], together[token])


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(0, 20), width=st.integers(1, 300), mean=st.floats(-100, 100), seed=st.integers(0, 99))
def test_a_layer_norm_of_any_shape_wherever_its_mean_lies(tokens: int, width: int, mean: float, seed: int) -> None:
    x, weight, bias = random(tokens, width, seed=seed) + mean, random(width, seed=seed + 1), random(width, seed=seed + 2)
    expected = layers.layer_norm(x.double(), weight.double(), bias.double(), 1e-3)
    torch.testing.assert_close(cpu_ops.layer_norm(x, weight, bias, 1e-3).double(), expected, rtol=1e-4, atol=3e-4)


def test_a_layer_norms_bits_are_a_tokens_own_on_any_threads() -> None:
    x, weight, bias = random(16, 4096), random(4096), random(4096, seed=1)
    together = cpu_ops.layer_norm(x, weight, bias, 1e-5)
    torch.testing.assert_close(together, layers.layer_norm(x, weight, bias, 1e-5), rtol=1e-5, atol=1e-5)
    set_threads(1)
    assert torch.equal(cpu_ops.layer_norm(x, weight, bias, 1e-5), together)
    set_threads()
    for token in range(16):
        assert torch.equal(cpu_ops.layer_norm(x[token : token + 1], weight, bias, 1e-5)[0], together[token])


def test_rows_may_be_strided() -> None:
    x, weight = random(6, 96), random(48)
    torch.testing.assert_close(cpu_ops.norm(x[::2, 48:], weight, 1e-5), rms_norm(x[::2, 48:], weight, 1e-5))


def test_a_nan_spoils_its_own_token_only() -> None:
    x = random(2, 64)
    x[0, 3] = float("nan")
    out = cpu_ops.norm(x, torch.ones(64), 1e-5)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()
