"""One piece of memory for all cold rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.arena import Arena, arena_for
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


@pytest.mark.parametrize("name", ["relu", "mlp_bias"])
def test_a_model_fits_the_arena_made_for_it(name: str, packed_of: PackedOf) -> None:
    packed = packed_of(name, "int8")
    spec = packed.manifest.spec
    for hot in (0, 7, spec.n_neurons):
        arena = arena_for(packed.manifest, [hot] * spec.n_banks)
        for layer in range(spec.n_layers):
            ((warm, cold),) = packed.load_banks(layer, None, [hot], allocate=arena.take)
            assert (len(warm), len(cold)) == (hot, spec.n_neurons - hot)
