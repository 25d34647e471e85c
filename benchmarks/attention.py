"""Attention of one token over the KV cache, as a share of what memory gives: a line for each shape and context, one JSON line at the end.

    python -m benchmarks.attention [--context 32 500 8000] [--heads 32:32:128 32:8:128 32:4:64] [--rounds 5]

A model's layers, attention alone, played back as a decode step is, over as many layers as no cache holds (FOOTPRINT); bytes are the
keys and values that the token attends to, and the bandwidth is probed before and after every round. Medians over rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

import cpu_ops
from benchmarks.arguments import positive_whole
from benchmarks.contest import settled
from benchmarks.probe import Probe
from benchmarks.shapes import LLAMA2_7B
from cpu_ops.attend import goes_through_torch
from cpu_ops.measure import Played
from cpu_ops.topology import set_threads
from models.command import run
from models.errors import BadValue
from models.kv_cache import KvCache
from models.layers import Rotary, Segments, segments_of
from models.spec import ModelSpec, Rope
from models.step import Step

CONTEXTS = (32, 500, 8000)
SHAPES = ("32:32:128", "32:8:128", "32:4:64")  # LLaMA-2-7B, Mistral-7B, TinyLlama
FOOTPRINT = 2**28
REPEATS_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Found:
    """`share` of the probed bandwidth that keys and values were read at, and the least and greatest of the rounds."""

    heads: str
    context: int
    share: float
    share_range: tuple[float, float]
    layer_us: float
    roofline_gb_per_second: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.attention", description="Attention over the KV cache against the roofline.")
    parser.add_argument(
        "--context", type=positive_whole, nargs="+", default=list(CONTEXTS), help="tokens attended to (default: %(default)s)"
    )
    parser.add_argument("--heads", nargs="+", default=list(SHAPES), help="heads:kv heads:width of a head (default: %(default)s)")
    parser.add_argument("--rounds", type=positive_whole, default=5, help="default: %(default)s")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    threads, read, found = set_threads(), probe(), list[Found]()
    for text in args.heads:
        for context in args.context:
            found.append(each := measure(text, context, args.rounds, read))
            told = f"{each.share:.2f} of {each.roofline_gb_per_second:.1f} GB/s, {each.layer_us:.1f} µs a layer"
            print(f"{text:>10} at {context:5}: {told}", flush=True)
    print(json.dumps({"benchmark": "attention", "threads": threads, "rows": [asdict(each) for each in found]}))
    return 0


def probe() -> Callable[[], float]:
    return Probe.build().bytes_per_second


def spec_of(text: str, context: int) -> ModelSpec:
    """Of heads and a context; its layers are as many as FOOTPRINT takes."""
    try:
        heads, kv_heads, dim = map(int, text.split(":"))
        spec = replace(LLAMA2_7B, n_heads=heads, n_kv_heads=kv_heads, head_dim=dim, rope=Rope(1e4, dim), context=context)
    except (ValueError, AssertionError) as error:
        raise BadValue("--heads", text, "is not like 32:8:128") from error
    if goes_through_torch(spec):
        raise BadValue("--heads", text, "has a width that no kernel is for")
    return replace(spec, n_layers=max(1, FOOTPRINT * spec.n_layers // (context * spec.kv_bytes_per_token())))


def measure(text: str, context: int, rounds: int, read: Callable[[], float]) -> Found:
    spec = spec_of(text, context)
    call = attending(spec, context)
    nbytes = context * spec.kv_bytes_per_token()
    shares, rooflines, seconds, before = list[float](), list[float](), list[float](), settled(read)
    for _ in range(rounds):
        took = seconds_of(call)
        after = settled(read)
        roofline, before = (before + after) / 2, after
        shares.append(nbytes / took / roofline)
        rooflines.append(roofline)
        seconds.append(took)
    layer_us = statistics.median(seconds) / spec.n_layers * 1e6
    spread = (round(min(shares), 3), round(max(shares), 3))
    return Found(
        text, context, round(statistics.median(shares), 3), spread, round(layer_us, 2), round(statistics.median(rooflines) / 1e9, 1)
    )


@torch.inference_mode()
def attending(spec: ModelSpec, context: int) -> "Attending":
    """The attention of every layer for the last token of a full context."""
    cache = KvCache(spec, slots=1, context=context)
    for part in (*cache.keys, *cache.values):
        part.copy_(torch.randn(1, 1, 1, spec.head_dim))
    zero = torch.zeros(1, dtype=torch.int64)
    step = Step(zero, torch.tensor([context - 1]), zero, zero)
    segments, rotation = segments_of(step), cpu_ops.rotation(Rotary(spec, torch.device("cpu")), step.positions)
    qkv = torch.randn(1, spec.q_width + 2 * spec.kv_width)

    def attend() -> None:
        for layer in range(spec.n_layers):
            cpu_ops.attend(layer, qkv, rotation, segments, cache)

    return Attending(Played.of(attend), cache, segments, (qkv, rotation.cos, rotation.sin))


@dataclass(frozen=True, slots=True)
class Attending:
    """A tape, with all that it reads."""

    played: Played
    cache: KvCache
    segments: Segments
    inputs: tuple[Tensor, ...]

    def __call__(self) -> None:
        self.played()


def seconds_of(call: Callable[[], None]) -> float:
    """The median of calls, one after the other, after one that warms up."""
    call()
    seconds, until = list[float](), time.perf_counter() + REPEATS_SECONDS
    while not seconds or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    raise SystemExit(main())
