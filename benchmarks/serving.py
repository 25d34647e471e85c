"""Time to the first token and tokens per second with several streams at once, over HTTP, one JSON line at the end.

    python -m benchmarks.serving [--model MODEL | --shape 1.1b [--work FOLDER]] [--streams 1 4 8 16] [--tokens 64] [--rounds 3]

A real `server run` with as many slots as there are streams, and nothing else to do. All streams of a round begin at once, with prompts that
have nothing in common, so that none is found in the cache. Figures are medians over streams and rounds; tokens per second in all are
those of a round, from its first request to its last token. --shape is a synthetic model (`served.py`), int4, all cold without a GPU.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.arguments import positive_whole
from benchmarks.hostile import PATH
from benchmarks.process import serving
from benchmarks.served import served, word
from benchmarks.shapes import SHAPES
from benchmarks.wire import connected, post
from models.command import run
from models.errors import ThermoclineError
from models.paths import BUNDLED_NAME

PROMPT_CHARACTERS = 200  # some 64 tokens
PROMPT_WORDS = 64  # of a synthetic model, whose tokens are words


@dataclass(frozen=True, slots=True)
class Stream:
    """Moments on one clock: asked, first token, last token; and how many tokens of its prompt were read and written."""

    asked: float
    first: float
    last: float
    prompt: int
    written: int

    @property
    def wait_seconds(self) -> float:
        return self.first - self.asked

    @property
    def per_second(self) -> float:
        """After the first token."""
        return (self.written - 1) / (self.last - self.first) if self.last > self.first else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.serving", description="Time to the first token, and tokens per second, with streams at once."
    )
    parser.add_argument("--model", default=BUNDLED_NAME, help="default: %(default)s")
    parser.add_argument("--shape", choices=tuple(SHAPES), help="a synthetic model instead")
    parser.add_argument("--work", type=Path, help="where that is written and kept (default: a folder that is removed)")
    parser.add_argument("--streams", type=positive_whole, nargs="+", default=[1, 4, 8, 16], metavar="N", help="default: 1 4 8 16")
    parser.add_argument("--tokens", type=positive_whole, default=64, help="written by each; default: %(default)s")
    parser.add_argument("--rounds", type=positive_whole, default=3, help="default: %(default)s")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        model, prompts = chosen(args, stack)
        _, base = stack.enter_context(serving(model, "--slots", str(max(args.streams))))
        url = base.removesuffix("/v1")
        asyncio.run(together(url, prompts, 2, 4))  # wakes everything up
        rounds = {n: [asyncio.run(together(url, prompts, n, args.tokens)) for _ in range(args.rounds)] for n in args.streams}
    found = [figures(n, streams) for n, streams in rounds.items()]
    for row in found:
        print(told(row))
    print(
        json.dumps(
            {"benchmark": "serving", "model": args.shape or args.model, "tokens": args.tokens, "rounds": args.rounds, "found": found}
        )
    )
    return 0


def chosen(args: argparse.Namespace, stack: ExitStack) -> tuple[str, Iterator[str]]:
    """The model to serve, and prompts for it."""
    if args.shape is None:
        return args.model, pieces()
    work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-")))
    return str(served(args.shape, work)), sentences(SHAPES[args.shape].vocab)


def sentences(vocab: int) -> Iterator[str]:
    """Prompts of random words."""
    random = Random(0)
    while True:
        yield " ".join(word(random.randrange(vocab)) for _ in range(PROMPT_WORDS))


def pieces() -> Iterator[str]:
    """Prompts that begin differently, over and over from other places of a text."""
    text = Path(textwrap.__file__).read_text()
    for number in range(len(text)):
        start = number * 37 % (len(text) - PROMPT_CHARACTERS)
        yield f"# {number}: {text[start : start + PROMPT_CHARACTERS]}"
    raise ThermoclineError("too many streams for one text")


async def together(url: str, prompts: Iterator[str], count: int, tokens: int) -> list[Stream]:
    return list(await asyncio.gather(*(stream(url, next(prompts), tokens) for _ in range(count))))


async def stream(url: str, prompt: str, tokens: int) -> Stream:
    """One greedy stream to its end, by the clock of its reader."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    asked, moments = time.perf_counter(), list[float]()
    timings: dict[str, float] = {}
    async with connected(url) as wire:
        await wire.send(post(PATH, json.dumps(body).encode()))
        if await wire.head() != 200:
            raise ThermoclineError(f"the server said {wire.status}: {(await wire.body())[:200]!r}")
        async for event in wire.events():
            if event is not None:
                moments.append(time.perf_counter())
                timings = event.get("timings", timings)
    return Stream(asked, moments[0], moments[-1], int(timings["prompt_n"]), int(timings["predicted_n"]))


def figures(count: int, rounds: Sequence[Sequence[Stream]]) -> dict[str, Any]:
    every = [stream for streams in rounds for stream in streams]
    waits = sorted(stream.wait_seconds for stream in every)
    totals = sorted(in_all(streams) for streams in rounds)
    return {
        "streams": count,
        "prompt_tokens": round(statistics.median(stream.prompt for stream in every)),
        "first_token_ms": ms(statistics.median(waits)),
        "first_token_range_ms": [ms(waits[0]), ms(waits[-1])],
        "each_tokens_per_second": round(statistics.median(stream.per_second for stream in every), 1),
        "tokens_per_second": round(statistics.median(totals), 1),
        "tokens_per_second_range": [round(totals[0], 1), round(totals[-1], 1)],
    }


def in_all(streams: Sequence[Stream]) -> float:
    """Tokens per second of a round."""
    seconds = max(stream.last for stream in streams) - min(stream.asked for stream in streams)
    return sum(stream.written for stream in streams) / seconds


def ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)


def told(row: dict[str, Any]) -> str:
    least, most = row["first_token_range_ms"]
    return (
        f"{row['streams']:2} streams: first token after {row['first_token_ms']:g} ms ({least:g}–{most:g}), "
        f"{row['each_tokens_per_second']:g} tokens/s each, {row['tokens_per_second']:g} in all"
    )


if __name__ == "__main__":
    raise SystemExit(main())
