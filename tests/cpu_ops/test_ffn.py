"""What only the CPU side promises: the bits do not depend on the threads, and a format needs no kernels."""

import numba
import pytest
import torch

import cpu_ops
from cpu_ops.describe import CODES
from cpu_ops.topology import set_threads
from models.bank import NeuronBank
from models.bits import FORMAT_NAMES, FormatName
from models.ffn import dense_ffn
from models.formats import FORMATS, Input
from models.rows import Rows
from models.spec import FfnRule

RULE = FfnRule("gated", "relu")


def example(name: FormatName, neurons: int = 700, hidden: int = 352) -> tuple[NeuronBank, Input]:
    generator = torch.Generator().manual_seed(0)
    gate, up, down = (Rows.encode(name, torch.randn(neurons, hidden, generator=generator) / 20) for _ in range(3))
    return NeuronBank(gate, up, down), FORMATS[name].input(torch.randn(3, hidden, generator=generator))


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_bits_do_not_depend_on_the_threads(name: FormatName) -> None:
    bank, x = example(name)
    results = []
    for threads in (1, min(2, int(numba.get_num_threads()))):
        set_threads(threads)
        results.append((cpu_ops.ffn(bank, x, RULE), cpu_ops.linear(bank.up, x)))
    set_threads()
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_bank_larger_than_a_tile(name: FormatName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpu_ops.tiles.TILE_WEIGHTS", 32 * 352)
    bank, _ = example(name, neurons=100)
    x = FORMATS[name].input(torch.randn(40, 352, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(cpu_ops.ffn(bank, x, RULE), dense_ffn(bank, x, RULE), rtol=1e-4, atol=1e-4)


def test_a_format_without_kernels_works_by_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, x = example("bf16", neurons=100)
    with_kernels = cpu_ops.ffn(bank, x, RULE), cpu_ops.linear(bank.up, x)
    monkeypatch.delitem(CODES, "bf16")
    torch.testing.assert_close(cpu_ops.ffn(bank, x, RULE), with_kernels[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cpu_ops.linear(bank.up, x), with_kernels[1], rtol=1e-4, atol=1e-4)
