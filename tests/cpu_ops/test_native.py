"""The fused region is called by a thread that Python did not make, while Python holds the GIL."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cpu_ops
from cpu_ops.native import NativeFfn
from cpu_ops.topology import set_threads
from models.bank import NeuronBank
from models.bits import FormatName
from models.formats import FORMATS
from models.rows import Rows
from models.spec import FfnRule

RULE = FfnRule("gated", "relu")
HIDDEN, NEURONS, TOKENS = 256, 1000, 3


def prepared(name: FormatName, seed: int = 0) -> NativeFfn:
    """Large enough for several threads to share it."""
    generator = torch.Generator().manual_seed(seed)
    gate, up, down = (Rows.encode(name, torch.randn(NEURONS, HIDDEN, generator=generator) / 16) for _ in range(3))
    x = FORMATS[name].input(torch.randn(TOKENS, HIDDEN, generator=generator))
    return NativeFfn(NeuronBank(gate, up, down), RULE, x, threads=set_threads())


def call_from_a_new_thread(native: NativeFfn) -> None:
    """A POSIX thread runs the function. PyDLL keeps the GIL all the while, in `pthread_join` too: whoever wanted it would wait forever."""
    libc = ctypes.PyDLL(None)
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(native.function), ctypes.c_void_p(native.argument)) == 0
    assert libc.pthread_join(thread, None) == 0


def check(name: FormatName) -> None:
    """The results of a foreign thread are those of the ordinary call, to the bit, and follow what is written to the buffer."""
    native = prepared(name)
    for _ in range(3):
        call_from_a_new_thread(native)
        assert torch.equal(native.out, cpu_ops.ffn(native.bank, native.x, RULE))
        native.x.values.copy_(native.x.values.flip(0))


@pytest.mark.parametrize("name", ["int4", "bf16"])
def test_a_thread_that_python_did_not_make_computes_the_same(name: FormatName) -> None:
    """In a process of its own, so that a deadlock is a failure and not a silence."""
    program = f"from tests.cpu_ops.test_native import check; check({name!r})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=Path(__file__).parents[2])


def test_called_by_address_it_gives_the_bits_of_the_ordinary_call() -> None:
    native = prepared("int8")
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(native.function)(native.argument)
    assert torch.equal(native.out, cpu_ops.ffn(native.bank, native.x, RULE))
    assert native.out.abs().max() > 0


def test_a_bank_of_no_neurons_adds_nothing() -> None:
    full = prepared("int4")
    native = NativeFfn(full.bank[:0], RULE, full.x, threads=1)
    native.out.fill_(1.0)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(native.function)(native.argument)
    assert torch.equal(native.out, torch.zeros(TOKENS, HIDDEN))


@pytest.mark.parametrize(("tokens", "threads"), [(17, 1), (1, 0), (1, 10_000)])
def test_what_the_function_could_not_check_is_refused_before(tokens: int, threads: int) -> None:
    bank, x = prepared("int4").bank, FORMATS["int4"].input(torch.ones(tokens, HIDDEN))
    with pytest.raises(AssertionError):
        NativeFfn(bank, RULE, x, threads=threads)
