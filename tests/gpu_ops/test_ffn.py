"""What only the device side promises. The contract that both sides share is in tests/test_ops_contract.py."""

import pytest
import torch

import gpu_ops
from models.bank import NeuronBank
from models.bits import FORMAT_NAMES, FormatName
from models.ffn import dense_ffn, dense_linear
from models.formats import FORMATS
from models.rows import Rows
from models.spec import FfnRule

RULE = FfnRule("gated", "relu")


def example(name: FormatName) -> NeuronBank:
    generator = torch.Generator().manual_seed(0)
    gate, up, down = (Rows.encode(name, torch.randn(100, 64, generator=generator) / 8) for _ in range(3))
    return NeuronBank(gate, up, down)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("tokens", [1, 30])
def test_tiles_add_up(name: FormatName, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_ops.tiles.TILE_WEIGHTS", 33 * 64)
    bank, x = example(name), FORMATS[name].input(torch.randn(tokens, 64))
    torch.testing.assert_close(gpu_ops.ffn(bank, x, RULE), dense_ffn(bank, x, RULE), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gpu_ops.linear(bank.up, x), dense_linear(bank.up, x), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("tokens", [1, 30])
def test_a_gpu_gives_what_the_cpu_gives(name: FormatName, tokens: int) -> None:
    bank, x = example(name), FORMATS[name].input(torch.randn(tokens, 64))
    there = gpu_ops.ffn(bank.to("cuda"), x.to("cuda"), RULE)
    torch.testing.assert_close(there.cpu(), gpu_ops.ffn(bank, x, RULE), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gpu_ops.linear(bank.up.to("cuda"), x.to("cuda")).cpu(), gpu_ops.linear(bank.up, x), rtol=1e-5, atol=1e-5)


def test_tf32_is_left_as_it_was() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    gpu_ops.linear(example("bf16").up, FORMATS["bf16"].input(torch.randn(1, 64)))
    assert torch.backends.cuda.matmul.allow_tf32 == before
