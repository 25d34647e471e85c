"""What a call of a bank's region costs by its address, besides its work: one line each, and one JSON line at the end.

    python -m benchmarks.native [--calls 2000]

A bank so small that there is next to no work is computed by the ordinary call from Python, by the C function called from Python, and by
the C function on a POSIX thread that Python did not make, while Python holds the GIL, as the host node of a CUDA graph would be. The
last includes making the thread and joining it; an empty function on such a thread says how much that is. Medians.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch

import cpu_ops
from benchmarks.arguments import positive_whole
from cpu_ops.native import NativeFfn
from cpu_ops.topology import set_threads
from models.bank import NeuronBank
from models.command import run
from models.formats import FORMATS
from models.rows import Rows
from models.spec import FfnRule

RULE = FfnRule("gated", "relu")
HIDDEN, NEURONS = 64, 64


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.native", description="What a call of a bank's region costs by its address.")
    parser.add_argument("--calls", type=positive_whole, default=2000, help="of each kind, in turn (default: %(default)s)")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    native = small_bank(set_threads())
    direct = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(native.function)
    nothing = ctypes.CDLL(None).abs
    ways: dict[str, Callable[[], object]] = {
        "ordinary_call": lambda: cpu_ops.ffn(native.bank, native.x, RULE),
        "by_address": lambda: direct(native.argument),
        "on_a_foreign_thread": lambda: on_a_foreign_thread(native.function, native.argument),
        "a_foreign_thread_alone": lambda: on_a_foreign_thread(ctypes.cast(nothing, ctypes.c_void_p).value or 0, 0),
    }
    found = {name: round(value * 1e6, 2) for name, value in medians(ways, args.calls).items()}
    for name, microseconds in found.items():
        print(f"{microseconds:8.2f} µs  {name}")
    overhead = round(found["on_a_foreign_thread"] - found["a_foreign_thread_alone"] - found["by_address"], 2)
    print(json.dumps({"benchmark": "native", "microseconds": found, "foreign_overhead": overhead}))
    return 0


def small_bank(threads: int) -> NativeFfn:
    generator = torch.Generator().manual_seed(0)
    gate, up, down = (Rows.encode("int4", torch.randn(NEURONS, HIDDEN, generator=generator)) for _ in range(3))
    x = FORMATS["int4"].input(torch.randn(1, HIDDEN, generator=generator))
    return NativeFfn(NeuronBank(gate, up, down), RULE, x, threads=threads)


def on_a_foreign_thread(function: int, argument: int) -> None:
    """A POSIX thread runs the function and ends. PyDLL keeps the GIL all the while."""
    libc, thread = ctypes.PyDLL(None), ctypes.c_ulong()
    failed = libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(function), ctypes.c_void_p(argument))
    assert not failed, failed
    libc.pthread_join(thread, None)


def medians(ways: dict[str, Callable[[], object]], calls: int) -> dict[str, float]:
    """Seconds of each way, which take turns; the first calls warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(calls + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


if __name__ == "__main__":
    raise SystemExit(main())
