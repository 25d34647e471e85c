"""What loading a packed model takes of memory and time, above a process that has only imported, one JSON line at the end.

    python -m benchmarks.load --shape bundled|1.1b|7b [--work FOLDER]

Peak is VmHWM, the kernel's own mark of resident memory (Linux). It counts pages of libraries that loading is the first to touch,
some megabytes, which only a small model notices. The page cache is not counted; a first run may read from disk.
"""

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.decode import build_parser, open_model
from models.arena import arena_for
from models.command import run
from models.packed import PackedModel


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    parser.prog, parser.description = "benchmarks.load", "Memory and time that loading takes."
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        model = open_model(args, stack)
        reset_peak()
        before, started = resident("VmRSS"), time.perf_counter()
        loaded = load(model)
        seconds, peak = time.perf_counter() - started, resident("VmHWM") - before
    kept = model.manifest.spine_bytes + model.manifest.neurons_bytes
    result = {"benchmark": "load", "shape": args.shape, "layers": len(loaded), "kept_bytes": kept, "peak_bytes": peak}
    print(json.dumps(result | {"peak_over_kept": round(peak / kept, 3), "seconds": round(seconds, 2)}))
    return 0


def load(model: PackedModel) -> list[object]:
    """Spine and banks as the server loads them, every neuron cold and in an order that is not the file's."""
    spec = model.manifest.spec
    order = torch.stack([torch.randperm(spec.n_neurons) for _ in range(spec.n_experts)])
    arena, nothing_hot = arena_for(model.manifest, [0] * spec.n_banks), [0] * spec.n_experts
    spine = model.load_spine()
    return [(spine, model.load_banks(layer, order, nothing_hot, allocate=arena.take)) for layer in range(spec.n_layers)]


def reset_peak() -> None:
    """The mark back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    raise SystemExit(main())
