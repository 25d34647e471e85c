"""Keys and values that move between slots, and out of them and back."""

import torch

from benchmarks.shapes import TINY_LLAMA
from models.arena import HUGE_BYTES
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


def test_a_large_cache_begins_as_zeros_too_each_layer_in_memory_of_its_own() -> None:
    cache = KvCache(TINY_LLAMA, slots=64, context=512)
    parts = (*cache.keys, *cache.values)
    assert sum(part.nbytes for part in parts) >= HUGE_BYTES
    for number, part in enumerate(parts, 1):
        assert not part.any()
        part.fill_(number)
    assert all(bool((part == number).all()) for number, part in enumerate(parts, 1))
