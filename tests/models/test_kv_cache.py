"""Keys and values that move between slots, and out of them and back."""

import os
from pathlib import Path

import pytest
import torch

from benchmarks.shapes import TINY_LLAMA
from models.arena import allocate
from models.kv_cache import KvCache


def filled() -> KvCache:
    """Three slots of eight positions; every number is different, as far as bf16 goes."""
    cache = KvCache(TINY_LLAMA, slots=3, context=8, dtype=torch.float32)
    for number, part in enumerate((*cache.keys, *cache.values)):
        part.copy_(torch.arange(part.numel()).view(part.shape) + number / 100)
    return cache


def test_a_copy_has_the_first_positions_and_leaves_the_rest() -> None:
    cache, before = filled(), filled()
    cache.copy(2, 0, 5)
    for part, old in zip((*cache.keys, *cache.values), (*before.keys, *before.values), strict=True):
        assert torch.equal(part[0, :, :5], old[2, :, :5])
        assert torch.equal(part[0, :, 5:], old[0, :, 5:])
        assert torch.equal(part[1:], old[1:])


def test_what_was_saved_comes_back_whole_or_in_part() -> None:
    cache, before = filled(), filled()
    saved = cache.save(1, 6)
    assert saved.nbytes == 6 * cache.bytes_per_token
    cache.copy(0, 1, 8)
    cache.restore(saved, 1, 4)
    for part, old in zip((*cache.keys, *cache.values), (*before.keys, *before.values), strict=True):
        assert torch.equal(part[1, :, :4], old[1, :, :4])
        assert torch.equal(part[1, :, 4:], old[0, :, 4:])


def test_a_tokens_bytes_are_what_the_plan_counts() -> None:
    assert KvCache(TINY_LLAMA, slots=2, context=4).bytes_per_token == TINY_LLAMA.kv_bytes_per_token()


def test_a_cleared_cache_holds_zeros_everywhere_whatever_its_memory_held() -> None:
    cache = KvCache(TINY_LLAMA, slots=2, context=8, allocate=lambda count: torch.full((count,), 255, dtype=torch.uint8))
    cache.clear()
    assert all((part == 0).all() for part in (*cache.keys, *cache.values))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's account of this process")
def test_a_cleared_cache_is_held_from_now_on() -> None:
    """256 MiB that nobody has written are not there yet."""
    before = resident_bytes()
    cache = KvCache(TINY_LLAMA, slots=1, context=(256 << 20) // TINY_LLAMA.kv_bytes_per_token(), allocate=allocate)
    untouched = resident_bytes() - before
    cache.clear()
    assert untouched < cache.nbytes / 2 < resident_bytes() - before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
