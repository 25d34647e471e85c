"""Is the plan true? Tokens per second that `placement` predicts for this machine, beside what the split model reaches on it.

    python -m benchmarks.plan --shape bundled|1.1b|7b|mistral|bamboo [--work FOLDER] [--rounds 3]

Every neuron is cold. A round measures the hardware as `profiles hardware` does, then decodes, each between two probes of the
memory's bandwidth: what was measured from memory is scaled by the probes beside the decoding over those beside the measuring.
What fires is what the run's own model fires; keys and values of the tokens so far are counted. Figures are medians over rounds.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks.activity import Activity
from benchmarks.arguments import add_model, positive_whole
from benchmarks.contest import Task, settled
from benchmarks.decode import open_model, profiled_order
from benchmarks.ours import Ours, load
from benchmarks.probe import Probe
from cpu_ops.topology import set_threads
from models.command import run
from models.manifest import Manifest
from models.spec import ModelSpec
from placement.cost import tabulate
from placement.rates import Rates
from profiles.hardware import Cpu, FormatPace, HardwareProfile, Pace, WidthPace
from profiles.probe import measure_cpu

PROMPT_TOKENS = 64
MODE = "exact"


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds per token; `drift` is the bandwidth beside the decoding over that beside the measuring."""

    predicted: float
    measured: float
    bandwidth: float
    drift: float

    @property
    def ratio(self) -> float:
        """Predicted over measured tokens per second: over 1 promises too much."""
        return self.measured / self.predicted


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.plan", description="Predicted tokens per second beside measured ones.")
    add_model(parser)
    parser.add_argument("--tokens", type=positive_whole, default=32, help="tokens decoded in a run (default: 32)")
    parser.add_argument("--rounds", type=positive_whole, default=3, help="each measures the hardware anew (default: 3)")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    threads = set_threads()
    with ExitStack() as stack:
        model = open_model(args, stack)
        ours = load(model, threads, profiled_order(args.shape))
    task, probe = Task(PROMPT_TOKENS, args.tokens, mode=MODE), Probe.build().bytes_per_second
    rounds = [play_round(ours, task, probe) for _ in range(args.rounds)]
    for each in rounds:
        told = f"predicted {1 / each.predicted:.2f} tokens/s, measured {1 / each.measured:.2f}, ratio {each.ratio:.3f}"
        print(f"{told}, at {each.bandwidth / 1e9:.1f} GB/s, {each.drift:.2f} of what it was", flush=True)
    result = {"benchmark": "plan", "shape": args.shape, "format": model.manifest.formats.neurons, "threads": threads}
    print(json.dumps(result | figures(rounds)))
    return 0


def play_round(ours: Ours, task: Task, probe: Callable[[], float]) -> Round:
    before = settled(probe)
    cpu = measure_cpu()
    between = settled(probe)
    seconds = statistics.median(ours.run(task).step_seconds)
    after = settled(probe)
    beside = (between + after) / 2
    drift = beside / ((before + between) / 2)
    predicted = predicted_seconds(ours.facts.manifest, ours.facts.activity[MODE], scaled(cpu, drift), task)
    return Round(predicted, seconds, beside, drift)


def predicted_seconds(manifest: Manifest, activity: Activity, cpu: Cpu, task: Task) -> float:
    """Of a token in the middle of the task, nothing hot."""
    costs = tabulate(manifest, flat(manifest.spec, activity), HardwareProfile(gpu=None, cpu=cpu), task.prompt + task.tokens // 2)
    return costs.spine + sum(costs.split([0] * manifest.spec.n_layers)) + costs.full_context


def flat(spec: ModelSpec, activity: Activity) -> Rates:
    """Every neuron of a model without experts at its mean rate: with nothing hot, which one fires makes no difference."""
    neurons = (spec.n_layers, spec.n_neurons)
    return Rates(np.full(neurons, activity.fired), np.full(neurons, activity.passed), np.ones((spec.n_layers, 1)))


def scaled(cpu: Cpu, drift: float) -> Cpu:
    """The same caches and Python, with a memory `drift` times as fast; faster than from caches, computing is the bound."""
    return cpu.model_copy(update={"formats": tuple(scaled_format(each, drift) for each in cpu.formats)})


def scaled_format(pace: FormatPace, drift: float) -> FormatPace:
    return pace.model_copy(update={"widths": tuple(scaled_width(each, drift) for each in pace.widths)})


def scaled_width(pace: WidthPace, drift: float) -> WidthPace:
    cached, memory = pace.cached, pace.memory
    gathering = (scaled_rate(*rates, drift) for rates in zip(memory.gathering, cached.gathering, strict=True))
    faster = Pace(
        streaming=scaled_rate(memory.streaming, cached.streaming, drift),
        scanning=scaled_rate(memory.scanning, cached.scanning, drift),
        gathering=tuple(gathering),
    )
    return pace.model_copy(update={"memory": faster})


def scaled_rate(memory: float, cached: float, drift: float) -> float:
    return min(memory * drift, max(cached, memory))


def figures(rounds: Sequence[Round]) -> dict[str, float | list[float]]:
    ratios = sorted(each.ratio for each in rounds)
    return {
        "roofline_gb_per_second": round(statistics.median(each.bandwidth for each in rounds) / 1e9, 2),
        "predicted_tokens_per_second": round(statistics.median(1 / each.predicted for each in rounds), 2),
        "measured_tokens_per_second": round(statistics.median(1 / each.measured for each in rounds), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


if __name__ == "__main__":
    raise SystemExit(main())
