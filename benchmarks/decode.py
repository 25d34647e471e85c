"""How fast tokens come, against how fast memory lets them: dense beside split, on the CPU, one JSON line at the end.

    python -m benchmarks.decode --shape bundled|1.1b|7b [--work FOLDER]

Dense is the same kernels with a threshold that every gate passes, so that no neuron is skipped; split is exact gate-first
selection, every neuron cold. Their runs take turns, each between two probes of the memory's bandwidth, and every share is a
share of those probes: bandwidth on shared machines changes from second to second. Figures are medians over rounds.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import cpu_ops
from benchmarks.activity import Activity, Counting, decode_bytes, prompt_bytes
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import build
from benchmarks.timing import PROMPT_TOKENS, Timing, greedy, prompt, time_between_probes, time_run
from cpu_ops.topology import set_threads
from gpu_ops.transfer import Staging
from models.bits import FORMAT_NAMES
from models.command import run
from models.kv_cache import KvCache
from models.manifest import Manifest
from models.ops import Ffn
from models.pack import packed
from models.packed import PackedModel
from models.spec import FfnRule
from models.transformer import Transformer
from models.units import format_bytes
from server.split_ffn import SplitBank, SplitFfn

EVERY_GATE_PASSES = -3e38  # nearly the least float32
COUNTED_TOKENS = 16

Figures = dict[str, float | list[float]]


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    transformer: Transformer
    activity: Activity
    timings: list[Timing]


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.decode", description="Tokens per second, dense beside split, against the roofline.")
    parser.add_argument("--shape", choices=("bundled", *SHAPES), default="bundled")
    parser.add_argument("--format", choices=FORMAT_NAMES, help="of the bundled model; synthetic ones are int4")
    parser.add_argument("--work", type=Path, help="where synthetic models are written and kept (default: a folder that is removed)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens decoded in a run (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (default: 3)")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    threads = set_threads()
    with ExitStack() as stack:
        model = open_model(args, stack)
        whole = format_bytes(model.manifest.spine_bytes + model.manifest.neurons_bytes)
        print(f"{model.manifest.name}: {whole} in {model.manifest.formats.neurons}, {threads} threads", flush=True)
        contenders = load(model)
    for _ in range(args.rounds):
        for contender in contenders:
            contender.timings.append(time_between_probes(contender.transformer, args.tokens))
    activity = contenders[-1].activity
    result = {"benchmark": "decode", "shape": args.shape, "format": model.manifest.formats.neurons, "threads": threads}
    counted = {"fired": round(activity.fired, 4), "gate_passed": round(activity.passed, 4), "prompt_tokens": PROMPT_TOKENS}
    print(json.dumps(result | counted | {each.name: figures(model.manifest, each, args.tokens) for each in contenders}))
    return 0


def open_model(args: argparse.Namespace, stack: ExitStack) -> PackedModel:
    if args.shape == "bundled":
        return packed("bundled", args.format)
    work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-")))
    return build(args.shape, SHAPES[args.shape], work / f"synthetic-{args.shape}")


def load(model: PackedModel) -> list[Contender]:
    """Dense and split over the same weights in memory, both run once, so that every kernel is compiled and every page touched."""
    spec, formats = model.manifest.spec, model.manifest.formats
    cpu_ops.warm_up((formats.neurons, formats.spine, formats.embedding))
    banks = [[SplitBank(hot, cold) for hot, cold in model.load_banks(layer)] for layer in range(spec.n_layers)]
    split = SplitFfn(spec.rule, banks, Staging(torch.device("cpu"), tokens=PROMPT_TOKENS, hidden=spec.hidden))
    dense = replace(split, rule=FfnRule(spec.rule.kind, "fatrelu", EVERY_GATE_PASSES))
    spine = model.load_spine()
    counting = Counting(split, spec.rule, {layer: banks[layer][0].cold for layer in {0, spec.n_layers // 2, spec.n_layers - 1}})
    count(Transformer(spec, spine, counting, cpu_ops))
    print(f"{counting.activity.fired:.1%} of neurons fire, {counting.activity.passed:.1%} of gates pass", flush=True)
    found: list[tuple[str, Ffn, Activity]] = [("dense", dense, Activity(1.0, 1.0)), ("split", split, counting.activity)]
    contenders = [Contender(name, Transformer(spec, spine, ffn, cpu_ops), activity, []) for name, ffn, activity in found]
    for contender in contenders:
        time_run(contender.transformer, 2)
    return contenders


def count(model: Transformer) -> None:
    """A prompt long enough to see a share of neurons."""
    greedy(model, KvCache(model.spec, slots=1, context=COUNTED_TOKENS), prompt(model)[:COUNTED_TOKENS], 0)


def figures(manifest: Manifest, contender: Contender, tokens: int) -> Figures:
    """What one contender reached. `decode_range` is the slowest and the fastest round; shares are of the probed bandwidth."""
    timings = contender.timings
    per_token = decode_bytes(manifest, contender.activity, PROMPT_TOKENS + tokens // 2)
    per_prompt_token = prompt_bytes(manifest, PROMPT_TOKENS)
    speeds = sorted(1 / timing.token_seconds for timing in timings)
    return {
        "roofline_gb_per_second": round(statistics.median(timing.roofline for timing in timings) / 1e9, 2),
        "decode_tokens_per_second": round(statistics.median(speeds), 2),
        "decode_range": [round(speeds[0], 2), round(speeds[-1], 2)],
        "decode_bytes_per_token": per_token,
        "decode_share": round(statistics.median(per_token / timing.token_seconds / timing.roofline for timing in timings), 3),
        "prompt_tokens_per_second": round(statistics.median(PROMPT_TOKENS / timing.prompt_seconds for timing in timings), 1),
        "prompt_bytes_per_token": per_prompt_token,
        "prompt_share": round(
            statistics.median(per_prompt_token * PROMPT_TOKENS / timing.prompt_seconds / timing.roofline for timing in timings), 3
        ),
    }


if __name__ == "__main__":
    raise SystemExit(main())
