"""One piece of memory for all cold rows."""

import mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.arena import HUGE_BYTES, Arena, allocate, neurons_room, spine_room
from models.layout import ALIGNMENT, aligned
from tests.conftest import PackedOf


@given(st.lists(st.integers(min_value=0, max_value=300), max_size=20))
def test_pieces_are_aligned_and_do_not_overlap(counts: list[int]) -> None:
    arena = Arena(sum(map(aligned, counts)))
    pieces = [arena.take(count) for count in counts]
    for number, piece in enumerate(pieces):
        piece.fill_(number)
    assert all(piece.data_ptr() % ALIGNMENT == 0 for piece in pieces if len(piece))
    assert all((piece == number).all() for number, piece in enumerate(pieces))


def test_more_than_there_is_cannot_be_taken() -> None:
    with pytest.raises(AssertionError):
        Arena(64).take(65)


@pytest.mark.parametrize("count", [0, 1, HUGE_BYTES - 1, HUGE_BYTES, 3 * HUGE_BYTES + 5])
def test_memory_outlives_the_name_it_was_given(count: int) -> None:
    piece = allocate(count).fill_(7)[count // 2 :]
    others = [allocate(count).fill_(8) for _ in range(3)]
    assert (piece == 7).all()
    assert all((other == 8).all() for other in others)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without huge pages on demand")
def test_large_memory_asks_for_huge_pages() -> None:
    piece = allocate(8 * HUGE_BYTES)
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    assert any(holds(line, piece.data_ptr()) for line in lines)
    flags = next(line for line in lines if line.startswith("VmFlags"))
    assert "hg" in flags.split()


def holds(line: str, address: int) -> bool:
    """Whether this line of smaps begins a mapping with `address` in it."""
    first, dash, last = line.split()[0].partition("-")
    return bool(dash) and int(first, 16) <= address < int(last, 16)


def test_a_system_without_huge_pages_gives_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert (allocate(HUGE_BYTES).fill_(3) == 3).all()


@pytest.mark.parametrize("name", ["relu", "mlp_bias"])
def test_a_model_fits_the_arena_made_for_it(name: str, packed_of: PackedOf) -> None:
    packed = packed_of(name, "int8")
    spec = packed.manifest.spec
    for hot in (0, 7, spec.n_neurons):
        arena = Arena(neurons_room(packed.manifest, [hot] * spec.n_banks) + spine_room(packed.manifest))
        for layer in range(spec.n_layers):
            ((warm, cold),) = packed.load_banks(layer, None, [hot], allocate=arena.take)
            assert (len(warm), len(cold)) == (hot, spec.n_neurons - hot)
        packed.load_spine(allocate=arena.take)
