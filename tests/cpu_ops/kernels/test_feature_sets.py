"""A whole process with a narrower instruction set: Numba's kernels too, which take no other target than the process's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor

import cpu_ops
from cpu_ops.encode import encode
from cpu_ops.kernels.attention_blocks import CHUNK
from cpu_ops.kernels.target import numba_target
from cpu_ops.tiles import decode
from models.bank import NeuronBank
from models.bits import FORMAT_NAMES
from models.spec import FfnRule
from tests.cpu_ops.kernels.examples import results, rows_and_input
from tests.cpu_ops.test_attend import Part, filled, run, shaped
from tests.cpu_ops.test_encode import weights

ROOT = Path(__file__).parents[3]
HERE = "tests.cpu_ops.kernels.test_feature_sets"


def of_functions(*, exact: bool) -> Tensor:
    """Through every function of every format."""
    return torch.cat([results(*rows_and_input(name, exact=exact)) for name in FORMAT_NAMES])


def of_encoding() -> Tensor:
    """Of rows and of columns, in both types that are read as they are."""
    made = [weights(70, 64).to(dtype) for dtype in (torch.float32, torch.bfloat16)]
    given = [*made, *(rows.T.contiguous()[:, 1:].T for rows in made)]
    return torch.cat([encode(name, rows).flatten().float() for name in ("int4", "int8") for rows in given])


def exactly() -> Tensor:
    return torch.cat([of_functions(exact=True), of_encoding()])


def of_kernels() -> Tensor:
    """Through the kernels around them."""
    parts = []
    for name in FORMAT_NAMES:
        rows, x = rows_and_input(name, exact=False)
        bank = NeuronBank(rows, rows, rows)
        parts += [cpu_ops.linear(rows, x), cpu_ops.ffn(bank, x, FfnRule("gated", "relu")), decode(rows)]
    return torch.cat([part.flatten() for part in parts])


def of_attention() -> Tensor:
    """One token and several, over the end of a chunk, for every tile and dim that has code of its own."""
    steps = [Part(0, CHUNK + 40, 1)], [Part(1, CHUNK - 3, 9), Part(2, 0, 2)]
    shapes = [(2, 2, 128), (4, 1, 64), (8, 1, 80), (8, 1, 64)]
    each = [(shaped(*shape), dtype, parts) for shape in shapes for dtype in (torch.bfloat16, torch.float32) for parts in steps]
    return torch.cat([run(filled(spec, dtype), parts).flatten() for spec, dtype, parts in each])


def everything() -> Tensor:
    return torch.cat([exactly(), of_functions(exact=False), of_kernels(), of_attention()])


def in_a_process(narrowed: dict[str, str], folder: Path) -> Tensor:
    """Asking the target for an instruction it lacks would end the process."""
    there = folder / "results.bin"
    program = f"from {HERE} import everything; open({str(there)!r}, 'wb').write(everything().numpy().tobytes())"
    environment = {**os.environ, **narrowed, "THERMOCLINE_HOME": str(folder)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=ROOT)
    return torch.frombuffer(bytearray(there.read_bytes()), dtype=torch.float32)


AVX512 = ("+avx512f", "+avx512bw", "+avx512cd", "+avx512dq", "+avx512vl", "+avx512vnni")


def only_with(narrowed: dict[str, str], feature: str) -> ParameterSet:
    """A set that runs where the CPU has its last feature."""
    lacking = pytest.mark.skipif(not numba_target().has(feature), reason=f"needs a CPU with {feature}")
    return pytest.param(narrowed, id=feature, marks=[lacking])


each_set = pytest.mark.parametrize(
    "narrowed",
    [
        pytest.param({"NUMBA_CPU_NAME": "generic"}, id="generic"),
        pytest.param({"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+ssse3,+sse4.1,+sse4.2"}, id="ssse3"),
        pytest.param({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,-f16c"}, id="without-f16c"),
        pytest.param({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c"}, id="avx2"),
        only_with({"NUMBA_CPU_NAME": "alderlake", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+avxvnni"}, "avxvnni"),
        only_with({"NUMBA_CPU_NAME": "znver4", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c," + ",".join(AVX512)}, "avx512vnni"),
    ],
)


@pytest.mark.slow
@each_set
def test_a_narrower_process_gives_the_same_numbers(tmp_path: Path, narrowed: dict[str, str]) -> None:
    theirs, ours = in_a_process(narrowed, tmp_path), everything()
    exact = len(exactly())
    assert torch.equal(theirs[:exact], ours[:exact])
    torch.testing.assert_close(theirs[exact:], ours[exact:], rtol=1e-5, atol=1e-5)
