"""Attention by the kernel beside float64, written out; the promises of the bits; what is and is not read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cpu_ops
import gpu_ops
from cpu_ops.kernels.attention_blocks import CHUNK, MOST_DIM
from cpu_ops.topology import set_threads
from models import layers
from models.kv_cache import KvCache
from models.layers import Rotary, Segment, Segments, segments_of
from models.spec import FfnRule, ModelSpec, Rope
from models.step import Step

CONTEXT, SLOTS = 2 * CHUNK + 100, 4
SPEC = ModelSpec("llama", 1, 64, 4, 2, 64, 8, 8, CONTEXT, FfnRule("gated", "relu"), Rope(10000.0, 64))


@dataclass(frozen=True)
class Part:
    """`count` tokens of one slot, the first at position `start`."""

    slot: int
    start: int
    count: int


def shaped(heads: int, kv_heads: int, dim: int, window: int | None = None) -> ModelSpec:
    return replace(SPEC, n_heads=heads, n_kv_heads=kv_heads, head_dim=dim, sliding_window=window, rope=Rope(10000.0, dim))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(spec: ModelSpec, dtype: torch.dtype = torch.bfloat16) -> KvCache:
    """A cache in which every position holds something, older sequences' leftovers included."""
    cache = KvCache(spec, slots=SLOTS, context=CONTEXT, dtype=dtype)
    cache.keys[0].copy_(random(*cache.keys[0].shape, seed=1))
    cache.values[0].copy_(random(*cache.values[0].shape, seed=2))
    return cache


def step_of(parts: Sequence[Part]) -> Step:
    slots = torch.tensor([part.slot for part in parts for _ in range(part.count)])
    positions = torch.tensor([part.start + i for part in parts for i in range(part.count)])
    return Step(torch.zeros_like(slots), positions, slots, torch.tensor([0]))


def projected(spec: ModelSpec, parts: Sequence[Part]) -> Tensor:
    """qkv [T, q + 2·kv], each token's own whoever else is in the step."""
    width = spec.q_width + 2 * spec.kv_width
    return torch.cat([random(width, seed=7919 * part.slot + part.start + i)[None] for part in parts for i in range(part.count)])


def run(cache: KvCache, parts: Sequence[Part], qkv: Tensor | None = None) -> Tensor:
    step = step_of(parts)
    rotation = Rotary(cache.spec, torch.device("cpu")).at(step.positions)
    return cpu_ops.attend(0, projected(cache.spec, parts) if qkv is None else qkv, rotation, segments_of(step), cache)


def turned(spec: ModelSpec, x: Tensor, position: int) -> Tensor:
    """float64 [heads, dim], each pair (i, i + dim/2) as a complex number, turned."""
    half = spec.head_dim // 2
    angles = position * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    pairs = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((pairs.real, pairs.imag), dim=1)


def expected(cache: KvCache, parts: Sequence[Part]) -> Tensor:
    """float64 [T, q]: what the cache holds now, softmax and all, one token and one head after the other."""
    spec, rows = cache.spec, iter(projected(cache.spec, parts).double())
    out = []
    for part in parts:
        for position in range(part.start, part.start + part.count):
            queries = turned(spec, next(rows)[: spec.q_width].view(spec.n_heads, spec.head_dim), position)
            first = 0 if spec.sliding_window is None else max(0, position - spec.sliding_window + 1)
            for head, query in enumerate(queries):
                own = head * spec.n_kv_heads // spec.n_heads
                keys, values = (half[0][part.slot, own, first : position + 1].double() for half in (cache.keys, cache.values))
                out.append((keys @ query / spec.head_dim**0.5).softmax(0) @ values)
    return torch.stack(out).view(-1, spec.q_width)


shapes = st.sampled_from([(4, 2, 64), (4, 4, 32), (8, 1, 80), (12, 2, 16), (3, 3, 128), (8, 1, 64), (8, 2, 128)])


@st.composite
def any_parts(draw: st.DrawFn) -> list[Part]:
    """Up to 16 tokens of any mix of slots."""
    slots = draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True))
    return [Part(slot, draw(st.integers(0, CONTEXT - 16)), draw(st.integers(1, 16 // len(slots)))) for slot in slots]


@settings(max_examples=60, deadline=None)
@given(shape=shapes, window=st.sampled_from([None, 1, 7, 300]), parts=any_parts(), dtype=st.sampled_from([torch.bfloat16, torch.float32]))
def test_any_step(shape: tuple[int, int, int], window: int | None, parts: list[Part], dtype: torch.dtype) -> None:
    cache = filled(shaped(*shape, window), dtype)
    torch.testing.assert_close(run(cache, parts).double(), expected(cache, parts), rtol=1e-4, atol=2e-5)  # angles are float32


@pytest.mark.parametrize("window", [None, 7])
def test_the_other_side_does_the_same(window: int | None) -> None:
    cache, parts = filled(shaped(4, 2, 64, window)), [Part(1, CHUNK - 3, 9), Part(0, 5, 1), Part(2, 0, 20)]
    step = step_of(parts)
    rotation = Rotary(cache.spec, torch.device("cpu")).at(step.positions)
    out = gpu_ops.attend(0, projected(cache.spec, parts), rotation, segments_of(step), cache)
    torch.testing.assert_close(out.double(), expected(cache, parts), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_cache_holds_the_bits_that_the_definition_writes(dtype: torch.dtype) -> None:
    parts = [Part(1, CHUNK - 3, 9), Part(0, 5, 1)]
    ours, theirs, qkv = filled(SPEC, dtype), filled(SPEC, dtype), projected(SPEC, parts)
    qkv[0, SPEC.q_width :: 3] = float("nan")
    qkv[1, SPEC.q_width :: 5] = float("inf")
    run(ours, parts, qkv)
    layers.attend(0, qkv, Rotary(SPEC, torch.device("cpu")).at(step_of(parts).positions), segments_of(step_of(parts)), theirs)
    for mine, its in ((ours.keys[0], theirs.keys[0]), (ours.values[0], theirs.values[0])):
        torch.testing.assert_close(mine, its, rtol=0, atol=0, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(shape=shapes, window=st.sampled_from([None, 300]), parts=any_parts())
def test_a_tokens_bits_are_its_own(shape: tuple[int, int, int], window: int | None, parts: list[Part]) -> None:
    """Together on all threads, together on one, and one after the other."""
    caches = [filled(shaped(*shape, window)) for _ in range(3)]
    together = run(caches[0], parts)
    set_threads(1)
    assert torch.equal(run(caches[1], parts), together)
    set_threads()
    alone = [run(caches[2], [Part(part.slot, part.start + i, 1)]) for part in parts for i in range(part.count)]
    assert torch.equal(torch.cat(alone), together)


def test_a_prompt_beside_decodes_has_the_bits_of_its_pieces() -> None:
    """Whole in one step with others, or cut at odd places: later tokens see what earlier ones have just written."""
    parts = [Part(2, 40, 1), Part(0, CHUNK - 20, 53), Part(1, 0, 18)]
    whole, cut = filled(SPEC), filled(SPEC)
    together = run(whole, parts)
    torch.testing.assert_close(together.double(), expected(whole, parts), rtol=1e-4, atol=2e-5)
    pieces = [Part(2, 40, 1), Part(0, CHUNK - 20, 7), Part(0, CHUNK - 13, 46), Part(1, 0, 17), Part(1, 17, 1)]
    assert torch.equal(torch.cat([run(cut, [piece]) for piece in pieces]), together)


def test_heads_of_an_odd_width_go_through_torch() -> None:
    cache, parts = filled(shaped(4, 2, 24)), [Part(0, 9, 1)]
    torch.testing.assert_close(run(cache, parts).double(), expected(cache, parts), rtol=1e-4, atol=1e-5)


def test_heads_wider_than_any_go_through_torch() -> None:
    cache, parts = filled(shaped(1, 1, MOST_DIM + 16)), [Part(0, 9, 1)]
    torch.testing.assert_close(run(cache, parts).double(), expected(cache, parts), rtol=1e-4, atol=1e-5)


def test_no_tokens() -> None:
    rotation = Rotary(SPEC, torch.device("cpu")).at(torch.zeros(0))
    assert cpu_ops.attend(0, torch.zeros(0, SPEC.q_width + 2 * SPEC.kv_width), rotation, Segments(()), filled(SPEC)).shape == (0, 256)


@pytest.mark.parametrize("window", [None, 20])
def test_what_a_token_may_not_see_does_not_matter(window: int | None) -> None:
    """NaN everywhere else: later positions, those before the window, other slots; a later token of the same step too."""
    spec = shaped(4, 2, 64, window)
    cache, parts = filled(spec), [Part(1, 29, 4)]
    wanted = run(cache, parts)
    spoiled = filled(spec)
    first = 0 if window is None else 10
    for half in (spoiled.keys[0], spoiled.values[0]):
        kept = half[1, :, first:29].clone()
        half.fill_(float("nan"))
        half[1, :, first:29] = kept
    qkv = projected(spec, parts)
    qkv[3] = float("nan")
    out = run(spoiled, parts, qkv)
    assert torch.equal(out[:3], wanted[:3])
    assert out[3].isnan().all()


def test_a_nan_that_is_seen_is_passed_on() -> None:
    cache = filled(SPEC)
    cache.keys[0][0, 0, 3] = float("nan")
    out = run(cache, [Part(0, CHUNK + 20, 1)])
    assert out[0, :128].isnan().all()
    assert out[0, 128:].isfinite().all()


def test_scores_of_any_size() -> None:
    """Greatest scores far apart from chunk to chunk: nothing overflows, and what vanishes is zero."""
    cache, parts = filled(SPEC, torch.float32), [Part(0, 2 * CHUNK + 50, 1)]
    cache.keys[0][0, :, :CHUNK] *= 100
    cache.keys[0][0, :, CHUNK : 2 * CHUNK] *= 1e-3
    torch.testing.assert_close(run(cache, parts).double(), expected(cache, parts), rtol=1e-4, atol=1e-4)


def test_segments_know_their_places() -> None:
    assert segments_of(step_of([Part(2, 5, 1), Part(0, 7, 3)])).each == (Segment(2, 0, 1, 5, 6), Segment(0, 1, 4, 7, 10))


@pytest.mark.parametrize("outside", [Part(0, CONTEXT - 1, 2), Part(0, CONTEXT, 1), Part(SLOTS, 0, 1), Part(-1, 0, 1), Part(0, -1, 1)])
def test_what_lies_outside_the_cache_is_not_written(outside: Part) -> None:
    """It would be somebody else's memory."""
    with pytest.raises(AssertionError, match="Segment"):
        run(filled(SPEC), [outside])
