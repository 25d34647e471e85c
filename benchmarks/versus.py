"""Us and llama.cpp on the same shapes, taking turns, against the goals: a table and one JSON line.

    python -m benchmarks.versus [--shape 1.1b 7b mistral bamboo] [--only decode,predictor,prompt,batch,memory] [--rounds 3] [--work FOLDER]

Each side is a process of its own that sleeps while the other runs; every run stands between two probes of the memory's
bandwidth (`probe.py`). The peer is optional: with `llama-cpp-python` and `gguf` installed it computes the same shapes in Q4_0, every
neuron, since it knows no sparsity (and so serves "bamboo" with Mistral's file). Ours are synthetic models, 10 % of neurons firing
(`planted.py`), in the order a profile would give, as the server loads them. Speeds are medians over steps, figures medians over
rounds. Everything takes about a quarter of an hour, and five minutes more the first time, to write 9 GB of models.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.arguments import positive_whole
from benchmarks.contest import Contender, Lane, Task, play
from benchmarks.gguf_file import write_gguf
from benchmarks.goals import BATCH, DECODE_MODES, MEMORY_GOAL, PEER, rows_of, speed
from benchmarks.load import peak_of
from benchmarks.ours import Facts, load, load_weights, timed, warm_up
from benchmarks.peer import LlamaCpp, peer_missing
from benchmarks.planted import Planted
from benchmarks.probe import Probe
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import SEED, build
from benchmarks.table import Row, render
from benchmarks.worker import Worker
from cpu_ops.topology import set_threads
from models.command import run
from models.errors import BadValue
from models.packed import PackedModel

PARTS = ("decode", "predictor", "prompt", "batch", "memory")
PEER_SHAPE = {"bamboo": "mistral"}  # the same matrices
PREDICTOR_SHAPES = ("1.1b", "7b", "mistral")  # the planted predictor foresees gates, and so not where up is rectified too
WHOLE_SHAPES = ("1.1b", "7b")  # whose prompts, batches and memory are measured
LONG_ROUNDS = 2  # of what takes minutes at 7B: prompts of 512 tokens, batches


@dataclass(slots=True)
class Session:
    """One run of the command: what was asked, and what came of it."""

    work: Path
    parts: tuple[str, ...]
    rounds: int
    tokens: int
    threads: int
    probe: Callable[[], float]
    with_peer: bool
    rows: list[Row] = field(default_factory=list)
    speeds: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    rooflines: list[float] = field(default_factory=list)
    activity: dict[str, object] = field(default_factory=dict)
    idle_cpu_seconds: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.versus", description="Us and llama.cpp, interleaved, against the goals.")
    parser.add_argument("--shape", choices=tuple(SHAPES), nargs="+", default=list(SHAPES))
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--work", type=Path, help="where models are written and kept (default: a folder that is removed)")
    parser.add_argument("--tokens", type=positive_whole, default=24, help="tokens decoded in a run (default: 24)")
    parser.add_argument(
        "--rounds", type=positive_whole, default=3, help=f"runs of each kind; of long ones at most {LONG_ROUNDS} (default: 3)"
    )
    parser.add_argument("--threads", type=positive_whole, default=2, help="of either side, and of the probe (default: 2)")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    parts, missing = chosen_parts(args.only), peer_missing()
    if missing:
        print(f"no peer: {' and '.join(missing)} not installed; our side only", flush=True)
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-")))
        probe = Probe.build().bytes_per_second
        session = Session(work, parts, args.rounds, args.tokens, set_threads(args.threads), probe, with_peer=not missing)
        for shape in args.shape:
            measure(session, shape)
    print(render(session.rows))
    print(json.dumps(summary(session)))
    return 0


def chosen_parts(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := [part for part in chosen if part not in PARTS]:
        raise BadValue("--only", ",".join(unknown), f"is none of {', '.join(PARTS)}")
    return chosen


def measure(session: Session, shape: str) -> None:
    """Everything asked of one shape: its memory in a process alone, then the contests."""
    folder = build(shape, SHAPES[shape], session.work / f"synthetic-{shape}").folder
    if "memory" in session.parts and shape in WHOLE_SHAPES:
        session.rows.append(memory_row(session, shape, folder))
    contests = contests_of(session, shape)
    if not contests:
        return
    with ExitStack() as stack:
        us = stack.enter_context(Worker(partial(build_ours, shape, folder, session.threads)))
        assert isinstance(us.facts, Facts)
        peer = stack.enter_context(Worker(partial(build_peer, peer_file(session, shape), session.threads))) if session.with_peer else None
        session.activity[shape] = {mode: asdict(activity) for mode, activity in us.facts.activity.items()}
        for tasks, rounds in contests:
            hold(session, shape, lanes_of(tasks, us, peer), rounds, us.facts)
        session.idle_cpu_seconds += us.idle_cpu_seconds + (peer.idle_cpu_seconds if peer else 0.0)


def peer_file(session: Session, shape: str) -> Path:
    shape = PEER_SHAPE.get(shape, shape)
    return write_gguf(shape, SHAPES[shape], session.work / f"{shape}.gguf")


def build_ours(shape: str, folder: Path, threads: int) -> tuple[Contender, object]:
    """In the worker."""
    spec = SHAPES[shape]
    ours = load(PackedModel.open(folder), threads, Planted(spec, SEED).order, SEED if shape in PREDICTOR_SHAPES else None)
    return ours, ours.facts


def build_peer(path: Path, threads: int) -> tuple[Contender, object]:
    """In the worker."""
    return LlamaCpp(path, threads), None


def contests_of(session: Session, shape: str) -> list[tuple[dict[str, Task], int]]:
    """Tasks by name, that take turns, and how many rounds."""
    decode, long = Task(64, session.tokens), min(session.rounds, LONG_ROUNDS)
    modes = ["dense", "exact"] if "decode" in session.parts else []
    modes += ["predictor"] if "predictor" in session.parts and shape in PREDICTOR_SHAPES else []
    contests = [({mode: replace(decode, mode=mode) for mode in modes}, session.rounds)] if modes else []
    if shape not in WHOLE_SHAPES:
        return contests
    if "prompt" in session.parts:
        contests += [({"prompt 64": Task(64, mode="exact")}, session.rounds), ({"prompt 512": Task(512, mode="exact")}, long)]
    if "batch" in session.parts:
        contests.append(({"batch": Task(16, session.tokens // 2, BATCH, "exact")}, long))
    return contests


def lanes_of(tasks: dict[str, Task], us: Contender, peer: Contender | None) -> list[Lane]:
    """Ours, and beside the last of them, so next to exact and to predictor, the peer's: it has one way for all of our modes."""
    lanes = [Lane(name, us, task) for name, task in tasks.items()]
    if peer is not None:
        lanes.insert(max(1, len(lanes) - 1), Lane(PEER, peer, lanes[0].task))
    return lanes


def hold(session: Session, shape: str, lanes: Sequence[Lane], rounds: int, facts: Facts) -> None:
    """One contest, its rows and its speeds."""
    started = time.perf_counter()
    found = play(lanes, rounds, session.probe)
    seconds = time.perf_counter() - started
    session.rooflines += [each.roofline for results in found.values() for each in results]
    session.rows += rows_of(shape, found, facts, seconds)
    contest = "decode" if lanes[0].name in DECODE_MODES else lanes[0].name
    speeds = {name: statistics.median(map(speed, results)) for name, results in found.items()}
    session.speeds.setdefault(shape, {})[contest] = {name: round(value, 2) for name, value in speeds.items()}
    told = ", ".join(f"{name} {value:.2f}" for name, value in speeds.items())
    print(f"{shape}, {contest}, tokens/s: {told} ({seconds:.0f} s)", flush=True)


def memory_row(session: Session, shape: str, folder: Path) -> Row:
    started = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        share = alone.submit(footprint, shape, folder, session.threads).result()
    return Row(shape, "peak memory ÷ weights and KV", MEMORY_GOAL, (share,), time.perf_counter() - started, at_most=True)


def footprint(shape: str, folder: Path, threads: int) -> float:
    """Loads and answers a prompt: peak memory above that of this process before, imports done and kernels warm, ÷ what it keeps."""
    set_threads(threads)
    model, task = PackedModel.open(folder), Task(64, 8, mode="exact")
    warm_up(model.manifest)
    order = Planted(SHAPES[shape], SEED).order
    peak_bytes = peak_of(lambda: timed(load_weights(model, order, None).ways()[task.mode], task))
    cache_bytes = (task.prompt + task.tokens) * model.manifest.spec.kv_bytes_per_token()
    return peak_bytes / (model.manifest.spine_bytes + model.manifest.neurons_bytes + cache_bytes)


def summary(session: Session) -> dict[str, object]:
    bandwidths = sorted(value / 1e9 for value in session.rooflines)
    spread = [round(value, 1) for value in (bandwidths[0], statistics.median(bandwidths), bandwidths[-1])] if bandwidths else []
    return {
        "benchmark": "versus",
        "threads": session.threads,
        "peer": session.with_peer,
        "torch": torch.__version__,
        "roofline_gb_per_second": spread,
        "idle_cpu_seconds": round(session.idle_cpu_seconds, 3),
        "tokens_per_second": session.speeds,
        "activity": session.activity,
        "rows": [row.to_json() for row in session.rows],
    }


if __name__ == "__main__":
    raise SystemExit(main())
