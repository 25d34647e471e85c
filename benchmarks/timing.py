"""A clock around a prompt and the tokens after it, between two probes of the memory's bandwidth. Knows no commands."""

import itertools
import statistics
import time
from dataclasses import dataclass

import torch

from cpu_ops.measure import streaming_bytes_per_second
from models.bits import FormatName
from models.kv_cache import KvCache
from models.step import Step
from models.transformer import Transformer

PROMPT_TOKENS = 64
PROBED: tuple[FormatName, ...] = ("float32", "int4")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run, its prompt and a token after it (median), and bytes per second that probes read before and after."""

    prompt_seconds: float
    token_seconds: float
    roofline: float


def time_between_probes(model: Transformer, tokens: int) -> Timing:
    before = probe()
    prompt_seconds, token_seconds = time_run(model, tokens)
    return Timing(prompt_seconds, token_seconds, (before + probe()) / 2)


def probe() -> float:
    """Bytes per second: the best of the formats probed, since a slow kernel says nothing about memory."""
    return max(streaming_bytes_per_second(name) for name in PROBED)


def time_run(model: Transformer, tokens: int) -> tuple[float, float]:
    """A random prompt in one step, then `tokens` greedy tokens: seconds of the prompt, median seconds of a token."""
    cache = KvCache(model.spec, slots=1, context=PROMPT_TOKENS + tokens)
    started = time.perf_counter()
    token = greedy(model, cache, prompt(model), 0)
    stamps = [time.perf_counter()]
    for i in range(tokens):
        token = greedy(model, cache, token, PROMPT_TOKENS + i)
        stamps.append(time.perf_counter())
    return stamps[0] - started, statistics.median(after - before for before, after in itertools.pairwise(stamps))


def prompt(model: Transformer) -> torch.Tensor:
    """int64 [PROMPT_TOKENS], the same every time."""
    return torch.randint(0, model.spec.vocab, (PROMPT_TOKENS,), generator=torch.Generator().manual_seed(0))


def greedy(model: Transformer, cache: KvCache, tokens: torch.Tensor, start: int) -> torch.Tensor:
    """int64 [1]: the likeliest token after `tokens` [T], which stand at `start` on."""
    positions = torch.arange(start, start + len(tokens))
    step = Step(tokens, positions, torch.zeros_like(tokens), torch.tensor([len(tokens) - 1]))
    return model.forward(step, cache).argmax(-1)
