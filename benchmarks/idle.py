"""What a server costs that nobody asks, and what it gives to the one who does: one line, and one JSON line at the end.

    python -m benchmarks.idle [--model MODEL] [--seconds N]

A real `server run` in a process of its own streams a few completions, one after the other; then its processor time is read before
and after some seconds of silence. Tokens per second are the server's own count, as its clients see it.
"""

import argparse
import json
import statistics
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.arguments import positive
from benchmarks.process import serving
from models.command import run
from models.paths import BUNDLED_NAME

TOKENS = 200
STREAMS = 5
SETTLE_SECONDS = 0.5  # OpenMP's threads wait awake for some milliseconds, the connection closes


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.idle", description="Processor time of a server that nobody asks.")
    parser.add_argument("--model", default=BUNDLED_NAME, help="default: %(default)s")
    parser.add_argument("--seconds", type=positive, default=10, help="of silence (default: %(default)s)")
    args = parser.parse_args(argv)
    return run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    with serving(args.model) as (process, url):
        speeds = [streamed_per_second(url) for _ in range(STREAMS)]
        time.sleep(SETTLE_SECONDS)
        before = wakes(process.pid)
        busy_seconds = idle_cost(process, args.seconds)
        woken = {thread: round((count - before.get(thread, 0)) / args.seconds, 1) for thread, count in wakes(process.pid).items()}
    share, speed = busy_seconds / args.seconds, statistics.median(speeds)
    print(f"{busy_seconds:.2f} s of processor time in {args.seconds:g} s of silence; {speed:.0f} tokens/s before that")
    spread = [round(min(speeds), 1), round(max(speeds), 1)]
    found: dict[str, object] = {"busy_seconds": busy_seconds, "idle_seconds": args.seconds, "share_of_a_core": round(share, 5)}
    found["wakes_per_second"] = {name: rate for name, rate in woken.items() if rate}
    print(json.dumps({"benchmark": "idle", "model": args.model, **found, "streamed_per_second": round(speed, 1), "streamed_range": spread}))
    return 0


def streamed_per_second(url: str) -> float:
    """Tokens per second of one greedy stream, by the timings in its last event."""
    body = {"prompt": "import os\n", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(f"{url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        events = [line for line in answer if line.startswith(b"data: {")]
    return float(json.loads(events[-1].removeprefix(b"data: "))["timings"]["predicted_per_second"])


def idle_cost(process: psutil.Process, seconds: float) -> float:
    """Seconds of processor time that all threads of `process` take while the clock goes on by `seconds`; in ticks of 10 ms."""
    before = busy(process)
    time.sleep(seconds)
    return round(busy(process) - before, 3)


def wakes(pid: int) -> dict[str, int]:
    """How often each thread of a process has gone to sleep so far, by its name and number. Linux tells; elsewhere nothing is known."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        except OSError:  # it has ended meanwhile
            continue
        found[f"{fields['Name'].strip()} {task.name}"] = int(fields["voluntary_ctxt_switches"])
    return found


def busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    raise SystemExit(main())
