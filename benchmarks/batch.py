"""Tokens per second of several sequences decoded together, by how many they are: a table and one JSON line.

    python -m benchmarks.batch --shape bundled|1.1b|7b|mistral|bamboo [--sizes 1 2 3 …] [--peer] [--work FOLDER]

Every size takes its turn in every round, exact gate-first selection, every neuron cold (`ours.py`). With --peer llama.cpp decodes
batches of the same sizes in a process of its own. Speeds are of all sequences together, medians over steps and then over rounds;
"÷ fewest" is against our own smallest batch in the same round, so that a slow spell of the machine meets both.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.arguments import positive_whole
from benchmarks.contest import Contender, Lane, Measured, Task, play
from benchmarks.decode import build_parser, open_model, probe, profiled_order
from benchmarks.gguf_file import write_gguf
from benchmarks.ours import load
from benchmarks.peer import peer_missing
from benchmarks.shapes import SHAPES
from benchmarks.versus import PEER_SHAPE, build_peer
from benchmarks.worker import Worker
from cpu_ops.topology import set_threads
from models.command import run
from models.errors import BadValue

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
PROMPT_TOKENS = 16
OURS, PEER = "ours", "llama.cpp"

Found = dict[str, dict[int, list[Measured]]]


def main(argv: Sequence[str] | None = None) -> int:
    args = build_batch_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_batch_parser() -> argparse.ArgumentParser:
    parser = build_parser()
    parser.prog, parser.description = "benchmarks.batch", "Tokens per second by the number of sequences decoded together."
    parser.add_argument(
        "--sizes", type=positive_whole, nargs="+", default=list(SIZES), help="sequences decoded together (default: 1 to 16)"
    )
    parser.add_argument("--peer", action="store_true", help="llama.cpp beside us, on synthetic shapes")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    sizes = sorted(set(args.sizes))
    threads = set_threads()
    with ExitStack() as stack:
        model = open_model(args, stack)
        ours = load(model, threads, profiled_order(args.shape))
        contenders: dict[str, Contender] = {OURS: ours}
        if args.peer:
            contenders[PEER] = stack.enter_context(open_peer(args, threads))
        found = hold(contenders, sizes, args.tokens, args.rounds, probe())
    print(render(found))
    print(json.dumps({"benchmark": "batch", "shape": args.shape, "threads": threads, "tokens_per_second": speeds(found)}))
    return 0


def open_peer(args: argparse.Namespace, threads: int) -> Worker:
    if missing := peer_missing():
        raise BadValue("--peer", "", f"needs {' and '.join(missing)}")
    if args.shape not in SHAPES or args.work is None:
        raise BadValue("--peer", args.shape, "needs a synthetic --shape, and --work for the peer's file")
    shape = PEER_SHAPE.get(args.shape, args.shape)
    return Worker(partial(build_peer, write_gguf(shape, SHAPES[shape], args.work / f"{shape}.gguf"), threads))


def hold(contenders: dict[str, Contender], sizes: Sequence[int], tokens: int, rounds: int, bandwidth: Callable[[], float]) -> Found:
    """Every contender at every size, in turn, round after round."""
    lanes = {
        (name, size): Lane(f"{name} {size}", contender, Task(PROMPT_TOKENS, tokens, size, "exact"))
        for size in sizes
        for name, contender in contenders.items()
    }
    results = play(list(lanes.values()), rounds, bandwidth)
    return {name: {size: results[lanes[name, size].name] for size in sizes} for name in contenders}


def speeds(found: Found) -> dict[str, dict[int, float]]:
    return {name: {size: round(speed(results), 2) for size, results in by_size.items()} for name, by_size in found.items()}


def speed(results: Sequence[Measured]) -> float:
    return statistics.median(each.decode_speed for each in results)


def render(found: Found) -> str:
    """A Markdown table, one line a size."""
    ours, peer = found[OURS], found.get(PEER)
    smallest = ours[min(ours)]
    lines = ["| sequences | total tok/s | range | ÷ fewest | a step, ms | llama.cpp | ÷ llama.cpp |", "|---|---|---|---|---|---|---|"]
    for size, results in ours.items():
        each = [result.decode_speed for result in results]
        gain = statistics.median(a / one.decode_speed for a, one in zip(each, smallest, strict=True))
        other = (f"{speed(peer[size]):.1f}", f"{statistics.median(ratios(results, peer[size])):.2f}") if peer else ("–", "–")
        step_ms = f"{1000 * size / speed(results):.1f}"
        cells = (str(size), f"{speed(results):.1f}", f"{min(each):.1f}–{max(each):.1f}", f"{gain:.2f}", step_ms, *other)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(ours: Sequence[Measured], peer: Sequence[Measured]) -> list[float]:
    """Round by round."""
    return [a.decode_speed / b.decode_speed for a, b in zip(ours, peer, strict=True)]


if __name__ == "__main__":
    raise SystemExit(main())
