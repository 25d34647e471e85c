"""Where the time of a decode step goes: each kernel, and what Python does around them. A table and one JSON line at the end.

    python -m benchmarks.step [--shape bundled|1.1b|7b|mistral|bamboo] [--mode dense|exact|predictor] [--context N] [--work FOLDER]

Steps are played back as the server's are, but with the clock read between the kernels (`timed_replay`); then whole, for what that
costs. `unexplained_per_layer` is the whole step (embedding, head and choosing a token included) less its bytes at the bandwidth
probed before and after, by the layers. The engine's own share is measured on a model that answers at once. Figures are medians over tokens.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.arguments import add_model, positive_whole
from benchmarks.contest import Task, settled
from benchmarks.decode import open_model, probe, profiled_order
from benchmarks.ours import Ours, load, random_prompt, step
from benchmarks.synthetic import SEED
from cpu_ops.kernels.replay import timed_replay
from cpu_ops.replay import Recorded, recorded_for
from cpu_ops.topology import set_threads
from models.command import run
from models.errors import ThermoclineError
from models.kv_cache import KvCache
from models.layers import segments_of
from models.step import Step
from models.transformer import Transformer
from server.detokenize import TextStream
from server.engine import Engine
from server.pace import Pace
from server.scheduler import Scheduler
from server.sequence import Params, generator
from server.sequence import Sequence as Writing
from server.slots import Slots

WARM_STEPS = 3


@dataclass(frozen=True, slots=True)
class Dissected:
    """Seconds of the parts of one step: the kernels by themselves, in their order."""

    before: float
    kernels: tuple[float, ...]
    after: float


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.step", description="Where the time of a decode step goes.")
    add_model(parser)
    parser.add_argument("--mode", choices=("dense", "exact", "predictor"), default="exact")
    parser.add_argument("--context", type=positive_whole, default=64, help="tokens before the first measured one (default: 64)")
    parser.add_argument("--tokens", type=positive_whole, default=100, help="steps measured each way (default: 100)")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    threads = set_threads()
    with ExitStack() as stack:
        model = open_model(args, stack)
        ours = load(model, threads, profiled_order(args.shape), SEED if args.mode == "predictor" else None)
    way, task = ours.ways[args.mode], Task(args.context, 2 * args.tokens + WARM_STEPS, mode=args.mode)
    read = probe()
    before = settled(read)
    whole, parts, recorded = measure(way, task, args.tokens)
    roofline = (before + settled(read)) / 2
    table = kernel_table(recorded, [each.kernels for each in parts])
    for name, (count, seconds) in sorted(table.items(), key=lambda row: -row[1][1]):
        print(f"{seconds * 1e6:9.1f} µs in {count:3} calls  {name}")
    print(json.dumps({"benchmark": "step", "shape": args.shape, "mode": args.mode, **figures(ours, task, roofline, whole, parts)}))
    return 0


def measure(way: Transformer, task: Task, tokens: int) -> tuple[list[float], list[Dissected], Recorded]:
    """Seconds of whole steps, and the parts of as many others; they take turns."""
    cache = KvCache(way.spec, slots=1, context=task.prompt + task.tokens)
    step(way, cache, random_prompt(way, task.prompt, 0), range(task.prompt), [0] * task.prompt)
    token, whole, parts, positions = torch.zeros(1, dtype=torch.int64), list[float](), list[Dissected](), iter(range(task.prompt, 1 << 30))
    for _ in range(WARM_STEPS):
        token = step(way, cache, token, [next(positions)], [0])
    recorded = recorded_for(step_at(token, 0), cache)
    if recorded is None:
        raise ThermoclineError("steps of this model are not played back")
    for _ in range(tokens):
        started = time.perf_counter()
        token = step(way, cache, token, [next(positions)], [0])
        whole.append(time.perf_counter() - started)
        parts.append(dissect(recorded, step_at(token, next(positions)), cache))
    return whole, parts, recorded


def step_at(token: Tensor, position: int) -> Step:
    zero = torch.zeros(1, dtype=torch.int64)
    return Step(token, torch.tensor([position]), zero, zero)


@torch.inference_mode()
def dissect(recorded: Recorded, asked: Step, cache: KvCache) -> Dissected:
    """What `Recorded.play` and its callers do, with the clock read in between."""
    count = len(recorded.calls)
    stamps = np.zeros(count + 1, np.int64)
    started = time.perf_counter()
    recorded.take(asked, segments_of(asked), cache)
    taken = time.perf_counter()
    timed_replay(recorded.address, count, stamps.ctypes.data)
    played = time.perf_counter()
    recorded.logits.clone().argmax(-1)
    return Dissected(taken - started, tuple((np.diff(stamps) / 1e9).tolist()), time.perf_counter() - played)


def kernel_table(recorded: Recorded, seconds: Sequence[tuple[float, ...]]) -> dict[str, tuple[int, float]]:
    """By kernel: how often a step calls it, and the seconds of all calls together, each call's its median."""
    medians = np.median(np.array(seconds), axis=0).tolist()
    found: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for (kernel, _), median in zip(recorded.tape.calls, medians, strict=True):
        count, total = found[kernel.__name__]
        found[kernel.__name__] = count + 1, total + median
    return found


def figures(ours: Ours, task: Task, roofline: float, whole: Sequence[float], parts: Sequence[Dissected]) -> dict[str, float]:
    """In µs where the name says nothing else."""
    step_seconds, bytes_seconds = statistics.median(whole), ours.facts.token_bytes(task) / roofline
    around = [(each.before, sum(each.kernels), each.after) for each in parts]
    before, kernels, after = (statistics.median(column) for column in zip(*around, strict=True))
    seconds = {
        "step": step_seconds,
        "bytes_at_roofline": bytes_seconds,
        "unexplained_per_layer": (step_seconds - bytes_seconds) / ours.facts.manifest.spec.n_layers,
        "kernels": kernels,
        "python_before": before,
        "python_after": after,
        "engine": statistics.median(engine_seconds(ours.facts.manifest.spec.vocab)),
    }
    rounded = {name: round(value * 1e6, 1) for name, value in seconds.items()}
    return {"layers": ours.facts.manifest.spec.n_layers, "roofline_gb_per_second": round(roofline / 1e9, 1), **rounded}


class Letters:
    """A decoder of tokens that are a letter each."""

    def push(self, token_id: int) -> str:
        return "x"

    def finish(self) -> str:
        return ""


def engine_seconds(vocab: int, steps: int = 200) -> Iterator[float]:
    """Of each step of an engine with one greedy sequence, over a model that answers at once."""
    logits, context = torch.randn(1, vocab), steps + 2
    engine = Engine(answering(logits), Scheduler(Slots(1), Pace(context)), context)
    params = Params(max_tokens=context, temperature=0)
    engine.submit(Writing((1,), params, TextStream(Letters()), generator(0, 0)))
    for _ in range(steps):
        started = time.perf_counter()
        engine.step()
        yield time.perf_counter() - started


def answering(logits: Tensor) -> Callable[[Step], Tensor]:
    return lambda step: logits


if __name__ == "__main__":
    raise SystemExit(main())
