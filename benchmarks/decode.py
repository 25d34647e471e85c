"""How fast tokens come, against how fast memory lets them: dense beside split, on the CPU, one JSON line at the end.

    python -m benchmarks.decode --shape bundled|1.1b|7b|mistral|bamboo [--work FOLDER]

Dense is the same model with SiLU, so that no neuron is skipped; split is exact gate-first selection, every neuron cold (`ours.py`).
Their runs take turns, each between two probes of the memory's bandwidth, and every share is a share of those probes: bandwidth
on shared machines changes from second to second. Figures are medians over rounds. Synthetic models are in the order of a profile.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from benchmarks.activity import prompt_bytes
from benchmarks.arguments import add_model, positive_whole
from benchmarks.contest import Lane, Measured, Task, play
from benchmarks.ours import Facts, load
from benchmarks.planted import Planted
from benchmarks.probe import Probe
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import SEED, build
from cpu_ops.topology import set_threads
from models.command import run
from models.pack import packed
from models.packed import PackedModel
from models.units import format_bytes

PROMPT_TOKENS = 64
MODES = {"dense": "dense", "split": "exact"}

Figures = dict[str, float | list[float]]


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.decode", description="Tokens per second, dense beside split, against the roofline.")
    add_model(parser)
    parser.add_argument("--tokens", type=positive_whole, default=32, help="tokens decoded in a run (default: 32)")
    parser.add_argument("--rounds", type=positive_whole, default=3, help="runs of each kind (default: 3)")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    threads = set_threads()
    with ExitStack() as stack:
        model = open_model(args, stack)
        whole = format_bytes(model.manifest.spine_bytes + model.manifest.neurons_bytes)
        print(f"{model.manifest.name}: {whole} in {model.manifest.formats.neurons}, {threads} threads", flush=True)
        ours = load(model, threads, profiled_order(args.shape))
    activity = ours.facts.activity["exact"]
    print(f"{activity.fired:.1%} of neurons fire, {activity.passed:.1%} of gates pass", flush=True)
    lanes = [Lane(name, ours, Task(PROMPT_TOKENS, args.tokens, mode=mode)) for name, mode in MODES.items()]
    found = play(lanes, args.rounds, probe())
    result = {"benchmark": "decode", "shape": args.shape, "format": model.manifest.formats.neurons, "threads": threads}
    counted = {"fired": round(activity.fired, 4), "gate_passed": round(activity.passed, 4), "prompt_tokens": PROMPT_TOKENS}
    print(json.dumps(result | counted | {name: figures(ours.facts, results) for name, results in found.items()}))
    return 0


def probe() -> Callable[[], float]:
    return Probe.build().bytes_per_second


def open_model(args: argparse.Namespace, stack: ExitStack) -> PackedModel:
    if args.shape == "bundled":
        return packed("bundled", args.format)
    work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-")))
    return build(args.shape, SHAPES[args.shape], work / f"synthetic-{args.shape}")


def profiled_order(shape: str) -> Tensor | None:
    """int64 [1, N]: the order that a profile would give a synthetic model, in which the server would load it; None: as in the file."""
    return Planted(SHAPES[shape], SEED).order if shape in SHAPES else None


def figures(facts: Facts, results: Sequence[Measured]) -> Figures:
    """What one way of computing reached. `decode_range` is the slowest and the fastest round; shares are of the probed bandwidth."""
    per_token, per_prompt_token = facts.token_bytes(results[0].task), prompt_bytes(facts.manifest, PROMPT_TOKENS)
    speeds = sorted(each.decode_speed for each in results)
    return {
        "roofline_gb_per_second": round(statistics.median(each.roofline for each in results) / 1e9, 2),
        "decode_tokens_per_second": round(statistics.median(speeds), 2),
        "decode_range": [round(speeds[0], 2), round(speeds[-1], 2)],
        "decode_bytes_per_token": per_token,
        "decode_share": round(statistics.median(each.share(per_token) for each in results), 3),
        "prompt_tokens_per_second": round(statistics.median(each.prompt_speed for each in results), 1),
        "prompt_bytes_per_token": per_prompt_token,
        "prompt_share": round(statistics.median(per_prompt_token * each.prompt_speed / each.roofline for each in results), 3),
    }


if __name__ == "__main__":
    raise SystemExit(main())
