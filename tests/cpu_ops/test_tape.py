"""What a tape holds, and what it notices that it does not hold."""

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import cpu_ops
from cpu_ops.kernels.replay import replay, timed_replay
from cpu_ops.replay import calls_of
from cpu_ops.tape import recording
from models.bank import NeuronBank
from models.rows import Rows
from models.spec import FfnRule

X = torch.arange(12.0).view(3, 4)

WITHIN: list[Callable[[Tensor], object]] = [
    lambda x: cpu_ops.add(x, x[0]),
    lambda x: x.view(4, 3)[1:].unsqueeze(0).split((1, 2), 1),
    lambda x: x.to("cpu").cpu().contiguous(),
    lambda x: torch.empty(3),
]
BESIDES: list[Callable[[Tensor], object]] = [
    lambda x: x + 1,
    lambda x: x.mul_(2),
    lambda x: x[torch.tensor([1])],
    lambda x: x.double(),
    lambda x: x.T.contiguous(),
    lambda x: x.nonzero(),
    lambda x: x[0, 0].item(),
    lambda x: x.tolist(),
    lambda x: x.numpy(),
    lambda x: torch.zeros(3),
]


@pytest.mark.parametrize("place", range(len(WITHIN)))
def test_kernels_views_and_new_memory_are_all_a_tape_needs(place: int) -> None:
    with torch.inference_mode(), recording() as tape:
        WITHIN[place](X)
    assert tape.stranger is None


@pytest.mark.parametrize("place", range(len(BESIDES)))
def test_whatever_torch_computes_or_python_reads_is_noticed(place: int) -> None:
    x = X.clone()
    with torch.inference_mode(), recording() as tape:
        BESIDES[place](x)
    assert tape.stranger is not None


def test_recording_does_not_bring_in_torchs_compiler() -> None:
    """74 MB that a process keeps, and a second before its first token."""
    script = (
        "import sys, torch\nfrom cpu_ops.tape import recording\n"
        "with torch.inference_mode(), recording() as tape: torch.ones(2) + 1\n"
        "assert tape.stranger is not None\nsys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_played_with_the_clock_read_the_calls_do_the_same() -> None:
    a, b = torch.ones(2, 8), torch.ones(8)
    with recording() as tape:
        out = cpu_ops.add(cpu_ops.add(a, b), b)
    calls, stamps = calls_of(tape), np.zeros(3, np.int64)
    assert out.sum() == 3 * 16
    a.fill_(2)
    before = time.monotonic_ns()
    timed_replay(calls.ctypes.data, 2, stamps.ctypes.data)
    after = time.monotonic_ns()
    assert before <= stamps[0] <= stamps[1] <= stamps[2] <= after
    assert out.sum() == 4 * 16
    a.fill_(3)
    replay(calls.ctypes.data, 2)
    assert out.sum() == 5 * 16


def test_a_matrix_and_a_bank_live_as_long_as_the_tape_that_reads_them() -> None:
    """Their blocks are small: whoever describes the next ones would get their memory."""
    rows = Rows.encode("int4", torch.randn(64, 32, generator=torch.Generator().manual_seed(0)))
    made, rule = cpu_ops.input(rows.format, torch.ones(1, 32)), FfnRule("gated", "relu")
    with recording() as tape:
        product = cpu_ops.linear(rows[8:40], made)
        added = cpu_ops.ffn(NeuronBank(rows[:32], rows[16:48], rows[32:]), made, rule)
    wanted, calls = (product.clone(), added.clone()), calls_of(tape)
    others = [rows[i : i + 16] for i in range(32)]
    for other in others:
        cpu_ops.ffn(NeuronBank(other, other, other), made, rule)
    replay(calls.ctypes.data, len(calls))
    assert torch.equal(product, wanted[0])
    assert torch.equal(added, wanted[1])
