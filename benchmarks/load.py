"""What loading a packed model takes of memory and time, against plain reading of the same bytes, one JSON line at the end.

    python -m benchmarks.load --shape bundled|1.1b|7b [--work FOLDER] [--rounds N] [--cold]

In turn, so that a slow spell meets all of them, and each time another first: `passed`, every byte read through a buffer and
forgotten; `read`, every file as it is into memory that was not there before, in pieces as large as the system takes, on as many threads
and in as large pages as loading uses, the fastest reading into memory that we know; `ready`, the model, its rows in another order than
the file's. The bar is ready ÷ read, of their medians. Both touch their memory for the first time, as whoever reads a file into memory
does. Imports come before.

Memory that is free for a while a virtual machine may give back to its host, and to be given it again takes longer than all of reading (here
1.4 to 4 s for 4 GB, against 0.3): so much as is needed is touched and freed the moment before each, for all alike. A run that it
happens to all the same shows in the range.

The page cache is warm, or with --cold the files are dropped from it before each. A synthetic model's layers are names of
one file, which a cold disk would read once only: --cold copies them apart first, as large as the real ones.

Peak is VmHWM, the kernel's own mark of resident memory (Linux), above that of a process that has only imported. It counts pages of
libraries that loading is the first to touch, some megabytes, which only a small model notices.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.decode import build_parser, open_model
from benchmarks.page_cache import forget
from models.arena import Arena, allocate, neurons_room, spine_room
from models.bits import BITS
from models.command import run
from models.layout import MANIFEST_FILE, SPINE_FILE, aligned, layer_file
from models.packed import PackedModel
from models.paths import check_disk
from models.reading import contiguous, opened, read, shared_out

BUFFER_BYTES = 1 << 18  # stays in the second-level cache


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    parser.prog, parser.description = "benchmarks.load", "Memory and time that loading takes."
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before every reading")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        model = open_model(args, stack)
        if args.cold:
            model = apart(model, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-", dir=args.work))))
        peak_bytes = peak_of(lambda: load(model))
        rivals: dict[str, Callable[[], object]] = {
            "passed": lambda: pass_all(model),
            "read": lambda: read_all(model),
            "ready": lambda: load(model),
        }
        seconds: dict[str, list[float]] = {name: [] for name in rivals}
        for turn in range(args.rounds):
            for name in in_turn(list(rivals), turn):
                if args.cold:
                    forget({path for path, _, _ in pieces(model)})
                seconds[name].append(timed(rivals[name], peak_bytes))
    print(json.dumps({"benchmark": "load", "shape": args.shape, "cold": args.cold} | figures(model, peak_bytes, seconds)))
    return 0


def figures(model: PackedModel, peak_bytes: int, seconds: Mapping[str, Sequence[float]]) -> dict[str, object]:
    """Medians over the rounds and their ratio, and the ratio of the fastest of each."""
    kept_bytes = model.manifest.spine_bytes + model.manifest.neurons_bytes
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ranges = {f"{name}_range": [round(min(times), 4), round(max(times), 4)] for name, times in seconds.items()}
    fastest = min(seconds["ready"]) / min(seconds["read"])
    return {
        "kept_bytes": kept_bytes,
        "peak_bytes": peak_bytes,
        "peak_over_kept": round(peak_bytes / kept_bytes, 3),
        **{f"{name}_seconds": round(median, 4) for name, median in medians.items()},
        **ranges,
        "ready_over_read": round(medians["ready"] / medians["read"], 3),
        "fastest_ready_over_read": round(fastest, 3),
    }


def peak_of(call: Callable[[], object]) -> int:
    """How far resident memory rose above what it was, in bytes."""
    reset_peak()
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def in_turn(names: Sequence[str], turn: int) -> Sequence[str]:
    """All of them, another first each time."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def timed(call: Callable[[], object], memory_bytes: int) -> float:
    """Seconds, without those of giving the memory back. `memory_bytes` are touched and freed the moment before."""
    allocate(memory_bytes).zero_()
    started = time.perf_counter()
    kept = call()
    seconds = time.perf_counter() - started
    del kept
    return seconds


def load(model: PackedModel) -> list[object]:
    """Opened, then spine and banks as the server loads them, every neuron cold and in an order that is not the file's."""
    model = PackedModel.open(model.folder)
    spec = model.manifest.spec
    order = torch.stack([torch.randperm(spec.n_neurons) for _ in range(spec.n_experts)])
    arena = Arena(neurons_room(model.manifest, [0] * spec.n_banks) + spine_room(model.manifest))
    return list(model.load(lambda layer: model.load_banks(layer, order, allocate=arena.take), allocate=arena.take))


def pieces(model: PackedModel) -> list[tuple[Path, int, int]]:
    """File, offset and bytes of all that loading reads: tensors of the spine that share bytes count each, as they do in memory."""
    layers = [model.folder / layer_file(layer) for layer in range(model.manifest.spec.n_layers)]
    spine = [(stored.offset, stored.rows * BITS[stored.format].row_bytes(stored.width)) for stored in model.manifest.spine.values()]
    return [(path, 0, path.stat().st_size) for path in layers] + [(model.folder / SPINE_FILE, offset, count) for offset, count in spine]


def read_all(model: PackedModel) -> Tensor:
    """Every byte in the order of the files, into one fresh piece of memory."""
    wanted = pieces(model)
    ends = list(accumulate(count for _, _, count in wanted))
    memory = allocate(ends[-1])
    shared_out(lambda job: _read_piece(*job[0], memory[: job[1]]), zip(wanted, ends, strict=True))
    return memory


def _read_piece(path: Path, offset: int, count: int, memory: Tensor) -> None:
    """Into the last `count` bytes of `memory`."""
    with opened(path) as descriptor:
        read(descriptor, [contiguous(offset, memory[len(memory) - count :])])


def pass_all(model: PackedModel) -> None:
    """Every byte, through a buffer for each thread."""
    shared_out(lambda piece: _pass(*piece), pieces(model))


def _pass(path: Path, offset: int, count: int) -> None:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with opened(path) as descriptor:
        for at in range(0, count, BUFFER_BYTES):
            os.preadv(descriptor, [buffer[: count - at]], offset + at)


def apart(model: PackedModel, folder: Path) -> PackedModel:
    """A copy in which no two tensors share bytes of the disk."""
    check_disk(folder, sum(count for _, _, count in pieces(model)))
    for layer in range(model.manifest.spec.n_layers):
        shutil.copyfile(model.folder / layer_file(layer), folder / layer_file(layer))
    stored, data = {}, (model.folder / SPINE_FILE).read_bytes()
    with (folder / SPINE_FILE).open("wb") as file:
        for name, tensor in model.manifest.spine.items():
            file.seek(aligned(file.tell()))
            stored[name] = tensor.model_copy(update={"offset": file.tell()})
            file.write(data[tensor.offset : tensor.offset + tensor.rows * BITS[tensor.format].row_bytes(tensor.width)])
    (folder / MANIFEST_FILE).write_text(model.manifest.model_copy(update={"spine": stored}).model_dump_json())
    os.sync()
    return PackedModel.open(folder)


def reset_peak() -> None:
    """The mark back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    raise SystemExit(main())
