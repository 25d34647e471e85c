"""What a text being written feels of a long prompt that arrives: seconds between its tokens before and meanwhile, one JSON line at the end.

    python -m benchmarks.stall [--shape 1.1b] [--prompt 4000] [--stall-ms 200] [--free] [--work FOLDER]

The engine of the server over a synthetic model, every neuron cold. --free is the comparison: prompts in chunks of the largest size,
however long they take.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.arguments import positive_whole
from benchmarks.ours import load, random_prompt
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import build
from cpu_ops.topology import set_threads
from models.command import run
from models.kv_cache import KvCache
from models.transformer import Transformer
from placement.budget import PROMPT_CHUNK
from server.config import DEFAULT_STALL_MS
from server.detokenize import TextStream
from server.engine import Engine
from server.pace import Pace
from server.scheduler import Scheduler
from server.sequence import Delta, Event, Params
from server.sequence import Sequence as Choice
from server.slots import Slots

ALONE = 30  # tokens that the stream writes before the prompt comes
FIRST_PROMPT = 64
ROOM = 1000  # tokens that the stream may write in all


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.stall", description="Seconds between the tokens of a stream while a prompt arrives.")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="1.1b")
    parser.add_argument("--prompt", type=positive_whole, default=4000, help="its tokens; default: %(default)s")
    parser.add_argument("--stall-ms", type=positive_whole, default=DEFAULT_STALL_MS, help="the server's --max-stall; default: %(default)s")
    parser.add_argument("--free", action="store_true", help="chunks of the largest size instead")
    parser.add_argument("--work", type=Path, help="where the model is written and kept (default: a folder that is removed)")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    threads = set_threads()
    spec = replace(SHAPES[args.shape], context=max(args.prompt, ROOM) + FIRST_PROMPT + 1)
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-")))
        ours = load(build(f"{args.shape}-{spec.context}", spec, work / f"synthetic-{args.shape}-{spec.context}"), threads)
    model = ours.ways["exact"]
    alone, meanwhile, prompt_seconds = measure(model, args.prompt, float("inf") if args.free else args.stall_ms / 1e3)
    print(f"alone {told(alone)}; while {args.prompt} tokens arrive {told(meanwhile)}; the prompt took {prompt_seconds:.1f} s")
    found = {"alone": figures(alone), "meanwhile": figures(meanwhile), "prompt_tokens_per_second": round(args.prompt / prompt_seconds, 1)}
    asked = {"shape": args.shape, "prompt": args.prompt, "stall_ms": None if args.free else args.stall_ms, "threads": threads}
    print(json.dumps({"benchmark": "stall", **asked, **found}))
    return 0


@dataclass(slots=True)
class Clocked:
    """When each token of a sequence came."""

    moments: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Delta):
            self.moments += [time.perf_counter()] * len(event.tokens)

    @property
    def gaps(self) -> list[float]:
        """Seconds between them."""
        return list(np.diff(self.moments))


class Silence:
    """A decoder without a text."""

    def push(self, token_id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


def measure(model: Transformer, prompt_tokens: int, stall_seconds: float) -> tuple[list[float], list[float], float]:
    """Gaps between the stream's tokens alone, and while the prompt is read; how long that took."""
    cache = KvCache(model.spec, slots=2, context=model.spec.context)
    pace = Pace(PROMPT_CHUNK, stall_seconds)
    engine = Engine(partial(model.forward, cache=cache), Scheduler(Slots(2, cache), pace), model.spec.context)
    step_until(engine, choice(model, FIRST_PROMPT, 1, seed=3), lambda one: one.finish is not None)  # warm, and the pace is known
    clocked = Clocked()
    stream = choice(model, FIRST_PROMPT, ROOM, seed=1)
    stream.emit = clocked
    step_until(engine, stream, lambda one: len(one.output) == ALONE)
    alone = clocked.gaps
    clocked.moments = clocked.moments[-1:]
    arriving = choice(model, prompt_tokens, 1, seed=2)
    step_until(engine, arriving, lambda one: one.finish is not None)
    return alone, clocked.gaps, arriving.times.first - arriving.times.arrived


def choice(model: Transformer, prompt: int, max_tokens: int, *, seed: int) -> Choice:
    tokens = random_prompt(model, prompt, seed).tolist()
    return Choice(
        tuple(tokens), Params(max_tokens=max_tokens, temperature=0), TextStream(Silence()), np.random.default_rng(0), group=str(seed)
    )


def step_until(engine: Engine, sequence: Choice, done: Callable[[Choice], bool]) -> None:
    engine.submit(sequence)
    while not done(sequence):
        engine.step()


def figures(gaps: list[float]) -> dict[str, float]:
    """Milliseconds: the median gap, the one that 95 of 100 stay under, and the longest."""
    return {"median_ms": ms(statistics.median(gaps)), "p95_ms": ms(float(np.quantile(gaps, 0.95))), "longest_ms": ms(max(gaps))}


def ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)


def told(gaps: list[float]) -> str:
    found = figures(gaps)
    return f"a token every {found['median_ms']:g} ms (95 of 100 within {found['p95_ms']:g}, longest {found['longest_ms']:g})"


if __name__ == "__main__":
    raise SystemExit(main())
