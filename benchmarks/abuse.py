"""A server under load and abuse: clients that stream, leave, read slowly and send nonsense, all at once; one JSON line at the end.

    python -m benchmarks.abuse [--minutes 10] [--warm-up 1] [--streams 32] [--model MODEL] [--seed N] [--log FILE]

A real `server run` on the loopback. First every request of a list is answered alone; then the clients come, each doing one thing
after another at random. What must hold, and makes the exit code 1 where it does not: no 5xx but 503; no request without an end;
every text that was read to its end equal to its solo run (`solo.py`); no traceback in the log; no choice left unfinished afterwards;
and resident memory flat. After a warm-up of the same load (`--warm-up`, one minute) it is looked at every second until the end: the median
of the last tenth of that time may be 2 % above the median of the first tenth. What it was when the server was ready, and its peak after
the warm-up, stand beside: a prompt of two million characters takes some hundred megabytes for a moment. A run that leaves less than
LEAST_MINUTES after the warm-up reports growth and does not judge it. It is no measurement of speed.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from benchmarks.arguments import positive, positive_whole
from benchmarks.hostile import ODD, PATH, garbage
from benchmarks.process import serving
from benchmarks.solo import Solo, solo
from benchmarks.wire import Gone, Wire, connected, post
from models.command import run
from models.paths import BUNDLED_NAME

FLAGS = ("--slots", "8", "--queue", "16", "--keep", "16MB")
TEXTS = 24  # requests in the list
PATIENCE_SECONDS = 120.0  # for one request, on a busy machine
GARBAGE_SECONDS = 2.0
LEAST_MINUTES = 0.5  # after the warm-up
LARGEST_GROWTH = 0.02
SAMPLE_SECONDS = 1.0

Act = Callable[["Client"], Awaitable[None]]


@dataclass(slots=True)
class Found:
    """What all clients have seen."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ready: int = 0  # resident bytes before the clients come
    resident: list[tuple[float, int]] = field(default_factory=list)  # minutes since they came, bytes; every SAMPLE_SECONDS

    def complain(self, what: str) -> None:
        self.counts["wrong"] += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)

    def status(self, act: str, status: int) -> None:
        self.counts[f"status {status}"] += 1
        if status >= 500 and status != 503:
            self.complain(f"{act}: status {status}")

    def memory(self, warm_up_minutes: float) -> "Memory":
        warm = [size for minutes, size in self.resident if minutes >= warm_up_minutes]
        tenth = max(1, len(warm) // 10)
        parts = [*(warm[part * tenth : (part + 1) * tenth] for part in range(9)), warm[-tenth:]]
        return Memory(self.ready, [statistics.median(part or [0]) for part in parts], max(warm, default=0))


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes: when the server was ready; medians of the tenths of the time after the warm-up; their peak."""

    ready: int
    levels: Sequence[float]
    peak: int

    @property
    def growth(self) -> float:
        """Of the last tenth over the first; 0 when nothing was seen after the warm-up."""
        return self.levels[-1] / self.levels[0] - 1 if self.levels[0] else 0.0

    def told(self) -> dict[str, Any]:
        return {
            "ready_mb": round(self.ready / 1e6),
            "resident_mb": [round(level / 1e6) for level in self.levels],
            "peak_mb": round(self.peak / 1e6),
            "growth": round(self.growth, 4),
            "growth_allowed": LARGEST_GROWTH,
        }


@dataclass(slots=True)
class Client:
    url: str
    solos: Sequence[Solo]
    found: Found
    random: Random

    async def act(self) -> None:
        """One of the things that clients do, to its end."""
        (act,) = self.random.choices(list(ACTS), weights=list(ACTS.values()))
        name = act.__name__
        self.found.counts[name] += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await act(self)
        except TimeoutError:
            self.found.complain(f"{name}: no end within {PATIENCE_SECONDS:g} s")
        except (Gone, ConnectionError) as error:
            self.found.complain(f"{name}: {type(error).__name__}")

    @asynccontextmanager
    async def asking(self, act: str, **fields: Any) -> AsyncIterator[tuple[Solo, Wire] | None]:
        """A request of the list, answered with 200; None when the server was full."""
        chosen = self.random.choice(self.solos)
        async with connected(self.url) as wire:
            await wire.send(post(PATH, json.dumps({**chosen.asked, **fields}).encode()))
            status = await wire.head()
            self.found.status(act, status)
            if status not in (200, 503):
                self.found.complain(f"{act}: status {status} where 200 was due: {(await wire.body())[:200]!r}")
            yield (chosen, wire) if status == 200 else None
        if status == 503:
            await asyncio.sleep(self.random.uniform(0, 1))

    def judge(self, act: str, chosen: Solo, text: str, timings: Mapping[str, Any]) -> None:
        verdict = chosen.judge(text)
        self.found.counts[f"text {verdict}"] += 1
        if verdict == "different":
            read = f"{timings.get('prompt_n')} tokens read, {timings.get('cache_n')} from the cache"
            self.found.complain(f"{act}: {text!r} where alone it is {chosen.text!r} ({read}, at {time.strftime('%H:%M:%S')})")


async def whole(client: Client) -> None:
    """One to three choices, in one answer."""
    async with client.asking("whole", n=client.random.randint(1, 3)) as asked:
        if asked is not None:
            chosen, wire = asked
            answer = json.loads(await wire.body())
            for choice in answer["choices"]:
                client.judge("whole", chosen, choice["text"], answer.get("timings", {}))


async def stream(client: Client) -> None:
    await read_stream(client, "stream", 0.0)


async def slow(client: Client) -> None:
    """Takes its time between events, longer than it takes to write them."""
    await read_stream(client, "slow", 0.2)


async def read_stream(client: Client, act: str, most_pause_seconds: float) -> None:
    """A stream to its end."""
    async with client.asking(act, stream=True) as asked:
        if asked is None:
            return
        chosen, wire = asked
        text, finish, last, timings = "", None, {}, dict[str, Any]()
        async for event in wire.events():
            last, timings = event, (event or {}).get("timings", timings)
            for choice in event["choices"] if event and "choices" in event else ():
                text, finish = text + choice["text"], choice["finish_reason"] or finish
            await asyncio.sleep(client.random.uniform(0, most_pause_seconds))
    if last is not None or finish not in ("stop", "length"):
        return client.found.complain(f"{act}: ended without its end ({finish}, {last})")
    client.judge(act, chosen, text, timings)


async def leave(client: Client) -> None:
    """Goes away after some events, or some milliseconds, or at once; politely or not."""
    chosen, random = client.random.choice(client.solos), client.random
    async with connected(client.url) as wire:
        await wire.send(post(PATH, json.dumps({**chosen.asked, "stream": True, "n": random.randint(1, 3)}).encode()))
        await asyncio.sleep(random.choice((0.0, 0.01, 0.1)))
        events = random.choice((0, 0, 1, 5))
        if events:
            client.found.status("leave", await wire.head())
        async for _ in wire.events() if wire.status == 200 else nothing():
            events -= 1
            if not events:
                break
        if random.random() < 0.5:
            wire.cut()


async def nothing() -> AsyncIterator[None]:
    for _ in ():
        yield


async def half(client: Client) -> None:
    """Announces a body and goes away in the middle of it."""
    request = post(PATH, json.dumps(dict(client.random.choice(client.solos).asked)).encode())
    async with connected(client.url) as wire:
        await wire.send(request[: client.random.randint(1, len(request) - 1)])
        await asyncio.sleep(client.random.uniform(0, 0.1))
        wire.cut()


async def odd(client: Client) -> None:
    """Something no client should send; the server may also hang up, or wait for the rest of what has none."""
    make = client.random.choice(ODD)
    async with connected(client.url) as wire:
        try:
            async with asyncio.timeout(GARBAGE_SECONDS if make is garbage else PATIENCE_SECONDS):
                await wire.send(make(client.random))
                client.found.status(f"odd ({make.__name__})", await wire.head())
        except (Gone, ConnectionError):
            client.found.counts["hung up"] += 1
        except TimeoutError:
            client.found.counts["waited for the rest"] += 1
            if make is not garbage:
                raise
        wire.cut()


ACTS: dict[Act, float] = {stream: 6, whole: 3, slow: 2, leave: 4, half: 1, odd: 4}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.abuse", description="Concurrent clients that stream, leave, read slowly and send nonsense."
    )
    parser.add_argument("--minutes", type=positive, default=10.0, help="default: %(default)s")
    parser.add_argument(
        "--warm-up", type=float, default=1.0, metavar="MINUTES", help="of those, before memory must be flat; default: %(default)s"
    )
    parser.add_argument("--streams", type=positive_whole, default=32, help="clients at once; default: %(default)s")
    parser.add_argument("--model", default=BUNDLED_NAME, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what the clients do; default: %(default)s")
    parser.add_argument("--log", type=Path, help="where the server's log is kept")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="thermocline-") as folder:
        log = args.log or Path(folder) / "log"
        with serving(args.model, *FLAGS, log=log) as (process, base):
            found = asyncio.run(abuse(base.removesuffix("/v1"), process, args))
        tracebacks = log.read_text(errors="replace").count("Traceback")
    if tracebacks:
        found.complain(f"{tracebacks} tracebacks in the server's log")
    memory, judged = found.memory(args.warm_up), args.minutes - args.warm_up >= LEAST_MINUTES
    if judged and memory.growth > LARGEST_GROWTH:
        found.complain(f"resident memory has grown by {memory.growth:+.1%} after the warm-up")
    for line in found.wrong:
        print(f"WRONG {line}")
    verdict = f"{LARGEST_GROWTH:+.0%} is allowed" if judged else "not judged"
    print(f"resident memory {memory.growth:+.1%} after a warm-up of {args.warm_up:g} minutes; {verdict}")
    asked = {name: getattr(args, name) for name in ("minutes", "warm_up", "streams", "model", "seed")}
    counts = dict(sorted(found.counts.items()))
    print(json.dumps({"benchmark": "abuse", **asked, **memory.told(), **counts, "ok": not found.counts["wrong"]}))
    return int(found.counts["wrong"] > 0)


async def abuse(url: str, process: psutil.Process, args: argparse.Namespace) -> Found:
    random, found = Random(args.seed), Found()
    solos = [one for one in [await solo(url, PATH, asked) for asked in requests(random, await context_of(url))] if one is not None]
    print(f"{len(solos)} requests, alone; then {args.streams} clients for {args.minutes:g} minutes", flush=True)
    until, found.ready = time.monotonic() + 60 * args.minutes, process.memory_info().rss
    clients = [Client(url, solos, found, Random(random.random())) for _ in range(args.streams)]
    watching = asyncio.create_task(watch(process, found))
    await asyncio.gather(*(busy(client, until) for client in clients))
    watching.cancel()
    try:
        await afterwards(url, solos, found)
    except (Gone, ConnectionError) as error:
        found.complain(f"afterwards: {type(error).__name__}: the server is gone")
    return found


async def busy(client: Client, until: float) -> None:
    while time.monotonic() < until:
        await client.act()


async def watch(process: psutil.Process, found: Found) -> None:
    began = time.monotonic()
    while True:
        found.resident.append(((time.monotonic() - began) / 60, process.memory_info().rss))
        await asyncio.sleep(SAMPLE_SECONDS)


async def afterwards(url: str, solos: Sequence[Solo], found: Found) -> None:
    """Nothing is left of the clients, and every request is answered as before."""
    for _ in range(100):
        if not (unfinished := (await get(url, "/health"))["unfinished"]):
            break
        await asyncio.sleep(0.1)
    else:
        found.complain(f"{unfinished} choices are unfinished when nobody is left")
    for one in solos:
        again = await solo(url, PATH, one.asked)
        if again is None or one.judge(again.text) == "different":
            found.complain(f"afterwards: {again and again.text!r} where it was {one.text!r}")


def requests(random: Random, context: int) -> list[dict[str, Any]]:
    """Greedy requests on pieces of this file: many begin alike, some are long, some have a stop string.

    No piece has more characters than half the context has tokens, so each fits.
    """
    text = Path(__file__).read_text()
    asked = []
    for number in range(TEXTS):
        start = random.choice((0, 0, 500, 1500))
        prompt = text[start : start + random.randint(1, context // 2)]
        stop = {"stop": ["\n\n", "return"]} if number % 4 == 0 else {}
        asked.append(
            {"prompt": prompt, "max_tokens": random.randint(1, min(100, context // 3)), "temperature": 0, "ignore_eos": True, **stop}
        )
    return asked


async def context_of(url: str) -> int:
    (model, *_) = (await get(url, "/v1/models"))["data"]
    return int(model["max_model_len"])


async def get(url: str, path: str) -> dict[str, Any]:
    async with connected(url) as wire:
        await wire.send(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        await wire.head()
        return dict(json.loads(await wire.body()))


if __name__ == "__main__":
    raise SystemExit(main())
