"""What each form of reading rows reaches, against what memory gives: a table and one JSON line.

    python -m benchmarks.kernels [--width 2048 4096] [--format int4 int8 bf16] [--threads 1 2] [--rounds 5]

Every entry of `row_table.TABLE` over a gigabyte of rows, and, where the level is "cache", over the few rows that stay in the first cache,
read again and again. The forms take turns; each is timed between two probes, and its share is a share of those.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.arguments import positive_whole
from benchmarks.probe import Probe
from benchmarks.row_table import TABLE, Form
from cpu_ops.topology import set_threads
from models.arena import allocate
from models.bits import BITS, FORMAT_NAMES, FormatName
from models.command import run
from models.formats import FORMATS
from models.rows import Rows

MEMORY_BYTES = 1 << 30
CACHED_BYTES, CACHED_READS = 16 << 10, 1 << 16  # so many that the call itself, some 10 µs, is less than a hundredth
DIFFERENT = 64  # rows that are encoded; the others repeat them


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.kernels", description="GB/s of each form of reading rows, and its share of a probe.")
    parser.add_argument("--width", type=positive_whole, nargs="+", default=[2048, 4096, 11008, 14336], help="weights of a row")
    parser.add_argument("--format", choices=FORMAT_NAMES, nargs="+", default=["int4", "int8", "bf16"])
    parser.add_argument("--threads", type=positive_whole, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=positive_whole, default=5)
    return parser


def benchmark(args: argparse.Namespace) -> int:
    memory, probe, found = allocate(MEMORY_BYTES), Probe.build(), []
    for threads in args.threads:
        set_threads(threads)
        for width in args.width:
            for name in args.format:
                found += measured(memory, probe, name, width, threads, args.rounds)
    print(json.dumps({"benchmark": "kernels", "rows": found}))
    return 0


def measured(memory: torch.Tensor, probe: Probe, name: FormatName, width: int, threads: int, rounds: int) -> list[dict[str, object]]:
    """One entry for each form of a format, from memory; on one thread from the first cache too."""
    forms, row = [form for each, form in TABLE if each == name], BITS[name].row_bytes(width)
    large, small = (rows_over(memory[: size // row * row], name, width) for size in (MEMORY_BYTES, max(CACHED_BYTES, 4 * row)))
    found = []
    for form in forms:
        gigabytes, share = streamed(large, form, probe, rounds)
        entry: dict[str, object] = {"format": name, "width": width, "threads": threads, "form": form.name}
        entry |= {"gb_per_second": round(gigabytes, 1), "share": round(share, 3)}
        if threads == 1 and form.density == 1:
            entry["cached_gb_per_second"] = round(cached(small, form, rounds), 1)
        found.append(entry)
        print(" ".join(f"{value}" for value in entry.values()), flush=True)
    return found


def rows_over(memory: torch.Tensor, name: FormatName, width: int) -> Rows:
    """memory: uint8, which is written over."""
    records = memory.view(-1, BITS[name].row_bytes(width))
    some = Rows.encode(name, torch.randn(DIFFERENT, width, generator=torch.Generator().manual_seed(0))).records()
    for first in range(0, len(records), DIFFERENT):
        records[first : first + DIFFERENT] = some[: len(records) - first]
    return Rows.view(name, width, records)


def streamed(rows: Rows, form: Form, probe: Probe, rounds: int) -> tuple[float, float]:
    """Median GB/s, and median share of the probes beside each turn."""
    which, before = form.chosen(len(rows)), probe.bytes_per_second()
    speeds, shares = [], []
    for _ in range(rounds):
        speed = bytes_per_second(rows, form, which)
        after = probe.bytes_per_second()
        speeds.append(speed)
        shares.append(2 * speed / (before + after))
        before = after
    return statistics.median(speeds) / 1e9, statistics.median(shares)


def cached(rows: Rows, form: Form, rounds: int) -> float:
    which = torch.arange(CACHED_READS) % len(rows)
    return statistics.median(bytes_per_second(rows, form, which) for _ in range(rounds)) / 1e9


def bytes_per_second(rows: Rows, form: Form, which: torch.Tensor) -> float:
    """Of one pass, after a call that makes it ready."""
    x = FORMATS[rows.format.name].input(torch.ones(1, rows.k))
    form.compute(rows, x, which[:1])
    started = time.perf_counter()
    form.compute(rows, x, which)
    return len(which) * rows.format.row_bytes(rows.k) / (time.perf_counter() - started)


if __name__ == "__main__":
    raise SystemExit(main())
