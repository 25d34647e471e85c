"""What only the CPU side promises: the bits do not depend on the threads, and on no instruction set more than rounding."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch
from torch import Tensor

import cpu_ops
from cpu_ops.describe import CODES
from cpu_ops.tiles import decode
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


def results_of_every_format() -> Tensor:
    """Through `dot` and `axpy` of every format."""
    parts = []
    for name in FORMAT_NAMES:
        bank, x = example(name, neurons=96)
        parts += [cpu_ops.linear(bank.up, x).flatten(), decode(bank.down).flatten()]
    return torch.cat(parts)


@pytest.mark.parametrize(
    "narrowed",
    [
        {"NUMBA_CPU_NAME": "generic"},
        pytest.param({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,-f16c"}, marks=pytest.mark.slow),
    ],
)
def test_a_narrower_instruction_set_gives_the_same_numbers(tmp_path: Path, narrowed: dict[str, str]) -> None:
    """In a process of its own: asking the target for an instruction it lacks would end the process."""
    there = tmp_path / "results.bin"
    program = f"from tests.cpu_ops.test_ffn import results_of_every_format as f; open({str(there)!r}, 'wb').write(f().numpy().tobytes())"
    environment = {**os.environ, **narrowed, "THERMOCLINE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=Path(__file__).parents[2])
    theirs = torch.frombuffer(bytearray(there.read_bytes()), dtype=torch.float32)
    torch.testing.assert_close(theirs, results_of_every_format(), rtol=1e-5, atol=1e-5)


def test_float16_scales_of_every_kind_are_decoded(every_scale: Tensor) -> None:
    """Zero, subnormal, normal, largest, infinite, NaN: one group per scale, all its weights 1."""
    quants = torch.full((len(every_scale), 32), 1, dtype=torch.int8)
    rows = Rows(FORMATS["int8"], 32, (quants, every_scale.unsqueeze(1)))
    x = Input(torch.eye(1, 32).to(torch.int8), torch.ones(1, 1))
    expected = torch.where(every_scale.isfinite(), every_scale.float(), torch.nan)  # 0 · infinity, in the other weights
    torch.testing.assert_close(cpu_ops.linear(rows, x)[0], expected, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def every_scale() -> Tensor:
    """All 65,536 of them."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)


def test_the_extreme_bytes_do_not_saturate() -> None:
    """int8 weights of −128 against inputs of ±127: the largest sums that 16 bits have to hold."""
    rows = Rows(FORMATS["int8"], 32, (torch.full((1, 32), -128, dtype=torch.int8), torch.ones(1, 1, dtype=torch.float16)))
    for value in (127, -127):
        x = Input(torch.full((1, 32), value, dtype=torch.int8), torch.ones(1, 1))
        assert cpu_ops.linear(rows, x).item() == -128 * value * 32


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
