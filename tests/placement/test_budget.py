"""Every byte is on a line, and what does not fit says what would."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpu_ops.tiles
import gpu_ops.tiles
from models.errors import DoesNotFit
from models.units import parse_bytes
from placement.budget import (
    CPU_TILE,
    GPU_TILE,
    MOST_MARGIN,
    Budget,
    Demand,
    Line,
    ask,
    cpu_lines,
    margin_bytes,
    room,
    smallest_limit,
    spine_lines,
    total_of,
    workspace_bytes,
)
from tests.placement.makers import SPEC, manifest_of

PLENTY = 10**12
TOY = manifest_of()
ALL = 3 * 320


def demand(vram_bytes: int | None = PLENTY, ram_bytes: int = PLENTY, context: int = 128, slots: int = 2) -> Demand:
    return Demand(context, slots, vram_bytes, ram_bytes)


def option(name: str, error: DoesNotFit) -> str:
    """What the advice says to give as `--name`."""
    found = re.search(rf"--{name} (\S+?)(?=[;, ]|$)", error.advice)
    assert found, error.advice
    return found.group(1)


def test_the_spine_the_cache_the_workspace_and_the_predictors_have_a_line_each() -> None:
    lines = {line.name: line.bytes for line in spine_lines(TOY, demand(context=100, slots=3))}
    assert lines["spine"] == TOY.spine_bytes
    assert lines["KV cache"] == 100 * 3 * 2 * 3 * 32 * 2  # context · slots · (keys and values) · layers · width · bf16
    assert lines["workspace"] == workspace_bytes(SPEC, 100, 3, GPU_TILE)
    assert lines["predictors"] == 0


def test_the_workspace_is_the_states_and_the_largest_of_attention_neurons_and_logits() -> None:
    tokens, decoded = 256 + 2, 9 * 64 * 320  # the largest matrix is smaller than a tile
    states = 4 * tokens * (6 * 64 + 2 * (64 + 64))
    assert workspace_bytes(SPEC, 1000, 2, GPU_TILE) == states + 4 * 1000 * (2 * 32 + 2 * 64 + 2 * 4 * 256)
    assert workspace_bytes(SPEC, 10, 2, GPU_TILE) == states + 4 * tokens * 5 * 320 + decoded
    assert workspace_bytes(replace(SPEC, vocab=4000), 10, 2, 100) == states + 4 * tokens * 2 * 4000 + 900
    ungrouped = workspace_bytes(replace(SPEC, n_kv_heads=4), 1000, 2, GPU_TILE)
    assert ungrouped == states + 4 * tokens * 2 * 2 * 32 + 4 * 1000 * (2 * 64 + 2 * 4 * 256)


def test_the_tiles_are_those_of_the_code_that_decodes() -> None:
    assert (gpu_ops.tiles.TILE_WEIGHTS, cpu_ops.tiles.TILE_WEIGHTS) == (GPU_TILE, CPU_TILE)


def test_without_a_gpu_the_ram_holds_the_spine_too() -> None:
    names = {line.name for line in cpu_lines(TOY, demand(vram_bytes=None))}
    assert names == {"spine", "KV cache", "workspace", "predictors"}
    assert {line.name for line in cpu_lines(TOY, demand())} == {"workspace", "pinned buffers"}
    assert room(TOY, demand(vram_bytes=None)).most == 0


@given(st.integers(0, 10**13))
def test_the_smallest_limit_leaves_what_is_needed_and_no_smaller_one_does(need: int) -> None:
    limit = smallest_limit(need)
    assert limit - margin_bytes(limit) >= need
    assert limit == 0 or (limit - 1) - margin_bytes(limit - 1) < need
    assert margin_bytes(limit) <= MOST_MARGIN


@given(st.integers(0, 10**15))
def test_a_size_in_advice_can_be_typed_and_is_never_too_small(count: int) -> None:
    assert count <= parse_bytes(ask(count)) <= count * 1.011 + 1


def test_a_large_budget_has_room_for_all_and_asks_for_none() -> None:
    available = room(TOY, demand())
    assert (available.least, available.most) == (0, ALL)


def test_room_is_counted_to_the_neuron() -> None:
    fixed = total_of(spine_lines(TOY, demand()))
    limit = smallest_limit(fixed + 100 * TOY.sizes.neuron)
    assert room(TOY, demand(vram_bytes=limit)).most == 100
    assert room(TOY, demand(vram_bytes=limit - 1)).most == 99


def test_little_ram_asks_for_hot_neurons() -> None:
    bare = total_of(cpu_lines(TOY, demand()))
    limit = smallest_limit(bare + 200 * TOY.sizes.neuron)
    assert room(TOY, demand(ram_bytes=limit)).least == ALL - 200
    assert room(TOY, demand(ram_bytes=limit - 1)).least == ALL - 199


def test_too_little_vram_names_the_smallest_that_works_and_it_works() -> None:
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(vram_bytes=1_500_000))
    error = caught.value
    assert error.what == "VRAM"
    assert room(TOY, demand(vram_bytes=error.need_bytes)).most == 0
    assert room(TOY, demand(vram_bytes=parse_bytes(option("vram", error)))).most >= 0
    with pytest.raises(DoesNotFit):
        room(TOY, demand(vram_bytes=error.need_bytes - 1))


def test_the_smaller_context_in_the_advice_fits_and_is_the_largest_that_does() -> None:
    few = total_of(spine_lines(TOY, demand(context=60)))
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(vram_bytes=smallest_limit(few)))
    assert option("context", caught.value) == "60"


def test_a_single_slot_is_advised_when_no_context_is_small_enough_for_all() -> None:
    one = total_of(spine_lines(TOY, demand(context=20, slots=1)))
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(vram_bytes=smallest_limit(one), slots=500))
    assert option("slots", caught.value) == "1"
    assert option("context", caught.value) == "20"


def test_less_than_the_spine_says_that_no_context_would_do() -> None:
    with pytest.raises(DoesNotFit, match="no smaller context would do"):
        room(TOY, demand(vram_bytes=1000))


def test_too_little_ram_names_the_smallest_that_works_and_it_works() -> None:
    """VRAM has room for 100 neurons: whole groups make 64 of them, so 896 must fit in RAM."""
    limit = smallest_limit(total_of(spine_lines(TOY, demand())) + 100 * TOY.sizes.neuron)
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(vram_bytes=limit, ram_bytes=2_000_000))
    error = caught.value
    assert error.what == "RAM"
    assert room(TOY, demand(vram_bytes=limit, ram_bytes=error.need_bytes)).least == 64
    assert room(TOY, demand(vram_bytes=limit, ram_bytes=parse_bytes(option("ram", error)))).least <= 64


def test_the_vram_in_the_advice_holds_every_neuron() -> None:
    bare = smallest_limit(total_of(cpu_lines(TOY, demand())))
    limit = smallest_limit(total_of(spine_lines(TOY, demand())))
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(vram_bytes=limit, ram_bytes=bare))
    larger = parse_bytes(option("vram", caught.value))
    assert room(TOY, demand(vram_bytes=larger, ram_bytes=bare)).most == ALL


def test_no_ram_for_the_workspace_is_not_cured_by_vram() -> None:
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(ram_bytes=1000))
    assert "every neuron fits" not in caught.value.advice


def test_without_a_gpu_too_little_ram_says_so() -> None:
    with pytest.raises(DoesNotFit) as caught:
        room(TOY, demand(vram_bytes=None, ram_bytes=10**6))
    assert "--vram" not in caught.value.advice
    assert room(TOY, demand(vram_bytes=None, ram_bytes=caught.value.need_bytes)).least == 0


def test_a_budget_adds_up() -> None:
    budget = Budget(what="RAM", limit_bytes=100, lines=(Line(name="a", bytes=30), Line(name="b", bytes=50)))
    assert (budget.used_bytes, budget.free_bytes) == (80, 20)
