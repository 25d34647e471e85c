"""Metrics: the numbers of a running server as Prometheus knows them. The text itself is the prometheus_client library's."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.measured import Measured, planned_bytes, planned_seconds
from server.service import Service

PREFIX = "thermocline_"


def exposition(service: Service) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Readings(service))
    return generate_latest(registry)


class Readings:
    """A collector; everything is read when it is asked."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        seen = Measured.look(self._service)
        yield from totals(seen)
        yield from finished(seen)
        yield from seconds(seen)
        yield from fired(seen)
        yield from present(seen)
        yield from placement(seen, self._service)


def counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, help, value=value)


def gauge(name: str, help: str, value: float | None) -> Iterator[Metric]:
    """Nothing where there is nothing to tell."""
    if value is not None:
        yield GaugeMetricFamily(PREFIX + name, help, value=value)


def labelled(metric: Metric, values: dict[str, float | None]) -> Metric:
    for label, value in values.items():
        if value is not None:
            metric.add_metric([label], value)  # type: ignore[attr-defined]
    return metric


def totals(seen: Measured) -> Iterator[Metric]:
    numbers = seen.numbers
    yield counter("prompt_tokens", "Tokens of prompts that the model read.", numbers.prompt_tokens)
    yield counter("prompt_tokens_cached", "Tokens of prompts that were not read again.", numbers.cached_tokens)
    yield counter("tokens_written", "Tokens written.", numbers.written_tokens)
    steps = CounterMetricFamily(PREFIX + "steps", "Steps of the engine.", labels=["kind"])
    yield labelled(steps, {"prompt": numbers.prompt_steps, "decode": numbers.decode_steps})


def finished(seen: Measured) -> Iterator[Metric]:
    reasons: dict[str, float | None] = dict.fromkeys(("stop", "length", "cancelled"), 0)
    reasons |= {str(reason): count for reason, count in seen.numbers.finished.items()} | {"failed": seen.numbers.failed}
    yield labelled(CounterMetricFamily(PREFIX + "choices_finished", "Choices, by how they ended.", labels=["reason"]), reasons)


def seconds(seen: Measured) -> Iterator[Metric]:
    """CPU and waiting add up to the time of all steps; the GPU works beside the CPU."""
    numbers = seen.numbers
    steps = CounterMetricFamily(PREFIX + "step_seconds", "Seconds inside steps, by kind.", labels=["kind"])
    yield labelled(steps, {"prompt": numbers.prompt_seconds, "decode": numbers.decode_seconds})
    sides = CounterMetricFamily(PREFIX + "side_seconds", "Seconds in steps: CPU computing, CPU waiting, GPU working.", labels=["side"])
    yield labelled(sides, {"cpu": numbers.cpu_seconds, "waiting": numbers.waiting_seconds, "gpu": numbers.gpu_seconds})


def fired(seen: Measured) -> Iterator[Metric]:
    """So that the share that the GPU serves can be had for any stretch of time."""
    sides = CounterMetricFamily(PREFIX + "firings_counted", "Neurons that fired in watched steps, by who served them.", labels=["side"])
    yield labelled(sides, {"gpu": seen.numbers.fired_hot, "cpu": seen.numbers.fired_cold})


def present(seen: Measured) -> Iterator[Metric]:
    numbers = seen.numbers
    yield from gauge("slots", "Texts that can be written at once.", numbers.slots)
    yield from gauge("slots_busy", "Texts being written.", numbers.slots_busy)
    yield from gauge("queue", "Choices without a slot.", numbers.waiting)
    yield from gauge("unfinished", "Choices that wait or run, or are not read to their end.", seen.unfinished)
    yield from gauge("kept_texts", "Old texts whose keys and values are kept outside the slots.", numbers.kept_texts)
    yield from gauge("kept_bytes", "Bytes of those.", numbers.kept_bytes)
    yield from gauge("kept_limit_bytes", "Bytes they may take.", numbers.kept_limit_bytes)
    yield from gauge("resident_bytes", "Resident memory of the process.", seen.memory.resident)
    yield from gauge("vram_bytes", "Memory of the GPU in use.", seen.memory.vram)
    yield from gauge("prompt_tokens_per_second", "Since the start, inside prompt steps.", seen.prompt_tokens_per_second)
    yield from gauge("tokens_per_second", "Written since the start, inside steps, all texts together.", seen.tokens_per_second)


def placement(seen: Measured, service: Service) -> Iterator[Metric]:
    """Each with the label source: what was planned, and what is measured."""
    plan = service.plan
    pairs = {
        "sequence_tokens_per_second": ("Of one text.", service.expected_per_second, seen.sequence_tokens_per_second),
        "hot_share": ("Share of firings that the GPU serves.", None if plan is None else plan.served_in_all, seen.hot_share),
        "hot_neurons": ("Neurons on the GPU.", None if plan is None else sum(plan.hot), seen.hot_neurons),
    }
    for name, (help, planned, measured) in pairs.items():
        yield labelled(GaugeMetricFamily(PREFIX + name, help, labels=["source"]), {"planned": planned, "measured": measured})
    seconds = {"planned": {} if plan is None else planned_seconds(plan), "measured": seen.step_seconds}
    yield by_source(
        "decode_step_seconds", "Of a decode step, the mean: CPU computing, CPU waiting, GPU working beside it.", "side", seconds
    )
    ram = {"planned": {} if plan is None else planned_bytes(plan.ram), "measured": seen.ram_bytes}
    yield by_source("ram_spent_bytes", "RAM, by what it is for.", "kind", ram)
    vram = {"planned": {} if plan is None or plan.vram is None else planned_bytes(plan.vram), "measured": seen.vram_bytes or {}}
    yield by_source("vram_spent_bytes", "Memory of the GPU, by what it is for.", "kind", vram)


def by_source(name: str, help: str, label: str, values: Mapping[str, Mapping[str, float | None]]) -> Metric:
    """`values`: planned and measured, each by the label."""
    metric = GaugeMetricFamily(PREFIX + name, help, labels=[label, "source"])
    for source, own in values.items():
        for key, value in own.items():
            if value is not None:
                metric.add_metric([key, source], value)
    return metric
