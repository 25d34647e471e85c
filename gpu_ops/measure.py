"""What a torch device gives: a clock runs here. Any device works; on the CPU the numbers are those of its memory.

Nothing here decides whether a device exists: the caller does.
"""

import statistics
import time
from collections.abc import Callable

import torch

BUFFER_BYTES = 2**28
BUDGET_SECONDS = 0.3
LAUNCHES = 100


def memory_bytes_per_second(device: torch.device, buffer_bytes: int = BUFFER_BYTES) -> float:
    """Reading a large float32 vector, as a dense product of one token reads weights."""
    weights = torch.ones(buffer_bytes // 4, device=device)
    return buffer_bytes / _median_seconds(device, weights.sum)


def to_device_bytes_per_second(device: torch.device, buffer_bytes: int = BUFFER_BYTES) -> float:
    """From pinned host memory."""
    host, there = _both_sides(device, buffer_bytes)
    return buffer_bytes / _median_seconds(device, lambda: there.copy_(host, non_blocking=True))


def to_host_bytes_per_second(device: torch.device, buffer_bytes: int = BUFFER_BYTES) -> float:
    """Into pinned host memory."""
    host, there = _both_sides(device, buffer_bytes)
    return buffer_bytes / _median_seconds(device, lambda: host.copy_(there, non_blocking=True))


def launch_seconds(device: torch.device) -> float:
    """Queueing one small operation, without waiting for it."""
    small = torch.zeros(1, device=device)

    def queue() -> None:
        for _ in range(LAUNCHES):
            small.add_(1)

    return _median_seconds(device, queue) / LAUNCHES


def sync_seconds(device: torch.device) -> float:
    """One small operation and waiting for it."""
    small = torch.zeros(1, device=device)
    return _median_seconds(device, lambda: small.add_(1))


def _both_sides(device: torch.device, buffer_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
    host = torch.ones(buffer_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return host, torch.empty(buffer_bytes, dtype=torch.uint8, device=device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _median_seconds(device: torch.device, call: Callable[[], object]) -> float:
    """The first call warms up; the rest share the budget, three at least."""
    call()
    _wait(device)
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < 3 or (time.perf_counter() - started < BUDGET_SECONDS and len(seconds) < 1000):
        before = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)
