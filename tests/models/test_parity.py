"""The transformer's logits are those of transformers, and of the NumPy reference for what transformers does not know."""

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import cpu_ops
import gpu_ops
from models.checkpoint.safetensors import open_safetensors
from models.kv_cache import KvCache
from models.ops import Ops
from models.pack import pack
from models.packed import PackedModel
from models.step import Step
from tests.checkpoints import LLAMA_VARIANTS, OWN_VARIANTS, make_llama
from tests.conftest import CheckpointOf, PackedOf
from tests.families import ALL, REFERENCED
from tests.models.running import Part, cache_for, dense, run_in_pieces, run_step
from tests.reference import Array, reference_logits

every_variant = pytest.mark.parametrize("name", [*LLAMA_VARIANTS, *OWN_VARIANTS, *ALL])
LENGTH = 48
CUTS = {"whole": [48], "chunks": [7, 1, 24, 16], "decode": [20] + [1] * 28}


def prompt(seed: int, length: int = LENGTH) -> list[int]:
    return random.Random(seed).choices(range(290), k=length)


@cache
def expected(folder: Path, seed: int, length: int = LENGTH) -> Array:
    """Logits [T, V] of transformers in float32 with eager attention, or of the reference."""
    if folder.name in REFERENCED:
        return reference_logits(folder, prompt(seed, length))
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        logits: Array = model(torch.tensor([prompt(seed, length)])).logits[0].double().numpy()
    return logits


def assert_equal_logits(logits: torch.Tensor, wanted: Array, relative: float = 1e-4) -> None:
    """Of every row, the largest error is at most `relative` of the largest logit."""
    assert logits.shape == wanted.shape
    error = np.abs(logits.double().numpy() - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
    assert error.max() <= relative


@every_variant
@pytest.mark.parametrize("cut", CUTS)
def test_one_sequence_however_it_is_cut(name: str, cut: str, checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    logits = run_in_pieces(dense(packed_of(name, "float32")), prompt(0), CUTS[cut])
    assert_equal_logits(logits, expected(checkpoint_of(name), 0))


@every_variant
@pytest.mark.parametrize("ops", [cpu_ops, gpu_ops], ids=["cpu", "gpu"])
def test_the_same_through_the_kernels(name: str, ops: Ops, checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    """A prompt long enough for the matrix product, then chunks and single tokens, which the kernels take."""
    logits = run_in_pieces(dense(packed_of(name, "float32"), ops), prompt(0), [24, 7, 1, 15, 1])
    assert_equal_logits(logits, expected(checkpoint_of(name), 0))


@every_variant
def test_sequences_of_unequal_lengths_share_steps(name: str, checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    """Three prompts at once in slots 2, 0, 1; then one goes on by a chunk while the others decode."""
    model = dense(packed_of(name, "float32"))
    cache, folder = cache_for(model, slots=3), checkpoint_of(name)
    lengths = {2: 13, 0: 1, 1: 30}  # slot -> tokens so far; also the seed of its prompt
    first = run_step(model, cache, [Part(slot, 0, prompt(slot)[:length]) for slot, length in lengths.items()])
    for (slot, length), logits in zip(lengths.items(), first, strict=True):
        assert_equal_logits(logits, expected(folder, slot)[:length])
    for _ in range(3):
        taken = {1: 1, 2: 1, 0: 9}
        parts = [Part(slot, lengths[slot], prompt(slot)[lengths[slot] : lengths[slot] + t]) for slot, t in taken.items()]
        for part, logits in zip(parts, run_step(model, cache, parts), strict=True):
            lengths[part.slot] += len(part.tokens)
            assert_equal_logits(logits, expected(folder, part.slot)[part.start : lengths[part.slot]])


@pytest.mark.parametrize("name", ["relu", "bamboo_window"])
def test_a_slot_forgets_its_last_sequence(name: str, checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    model = dense(packed_of(name, "float32"))
    cache = cache_for(model)
    run_step(model, cache, [Part(0, 0, prompt(5))])
    run_step(model, cache, [Part(0, 0, prompt(0)[:20])])
    (logits,) = run_step(model, cache, [Part(0, 20, prompt(0)[20:])])
    assert_equal_logits(logits, expected(checkpoint_of(name), 0)[20:])


@pytest.mark.parametrize("name", ["relu", "silu", "sparsellama", "bamboo"])
def test_only_wanted_rows_get_logits(name: str, packed_of: PackedOf) -> None:
    model = dense(packed_of(name, "float32"))
    every = run_in_pieces(model, prompt(0), [LENGTH])
    step = Step(torch.tensor(prompt(0)), torch.arange(LENGTH), torch.zeros(LENGTH, dtype=torch.int64), torch.tensor([47, 3]))
    assert torch.allclose(model.forward(step, cache_for(model)), every[[47, 3]], atol=1e-5)
    nothing = Step(step.tokens, step.positions, step.slots, torch.tensor([], dtype=torch.int64))
    assert model.forward(nothing, cache_for(model)).shape == (0, 290)


def test_a_bf16_cache_costs_little(checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    """bf16 keeps 8 bits: 0.4 % of a key or value, and averages out over heads."""
    model = dense(packed_of("relu", "float32"))
    (logits,) = run_step(model, KvCache(model.spec, slots=1, context=64), [Part(0, 0, prompt(0))])
    assert_equal_logits(logits, expected(checkpoint_of("relu"), 0), relative=2e-2)


def test_shards_pack_like_one_file(tmp_path: Path, packed_of: PackedOf) -> None:
    sharded = make_llama(tmp_path / "sharded", shard_bytes=50_000)
    pack(open_safetensors(sharded), tmp_path / "packed", "float32", quiet=True)
    one, many = packed_of("relu", "float32"), PackedModel.open(tmp_path / "packed")
    assert (one.folder / "spine.bin").read_bytes() == (many.folder / "spine.bin").read_bytes()
    assert (one.folder / "layer-0001.bin").read_bytes() == (many.folder / "layer-0001.bin").read_bytes()
