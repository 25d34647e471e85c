"""What lies in the slots and outside them, and what a new prompt gets of it; the cache is a table of tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from server.kept import Ids, Kept, KeptTexts, common
from server.slots import LEAST_KEPT, Slots

BYTES = 8  # a token: what `save` gives is int64


class Table:
    """A cache whose keys and values are the tokens themselves."""

    bytes_per_token = BYTES

    def __init__(self, slots: int) -> None:
        self.rows = torch.full((slots, 200), -1)
        self.copies = 0

    def copy(self, source: int, slot: int, count: int) -> None:
        self.copies += 1
        self.rows[slot, :count] = self.rows[source, :count].clone()

    def save(self, slot: int, count: int) -> Tensor:
        return self.rows[slot, :count].clone()

    def restore(self, saved: Tensor, slot: int, count: int) -> None:
        self.rows[slot, :count] = saved[:count]


def ids(*runs: tuple[int, int]) -> Ids:
    """(token, how often) one after the other."""
    return np.concatenate([np.full(count, token, dtype=np.int64) for token, count in runs])


class House:
    """Slots whose texts run one at a time."""

    def __init__(self, slots: int, keep_tokens: int = 0) -> None:
        self.table = Table(slots)
        self.slots = Slots(slots, self.table, keep_tokens * BYTES)

    def run(self, text: Ids) -> int:
        """The whole life of a text; how much of it was there already."""
        slot = self.slots.take(text)
        reused = self.slots.begin(slot, text, ())
        assert self.table.rows[slot, :reused].tolist() == text[:reused].tolist()
        self.table.rows[slot, reused : len(text)] = torch.from_numpy(text[reused:])
        self.slots.give_back(slot, text)
        return reused


@pytest.mark.parametrize(("first", "second", "shared"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([4], [4], 1)])
def test_texts_share_their_beginning(first: list[int], second: list[int], shared: int) -> None:
    assert common(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)) == shared


def test_a_turn_goes_on_where_the_one_before_ended() -> None:
    house = House(2)
    assert house.run(ids((1, 30))) == 0
    assert house.run(ids((2, 30))) == 0
    assert house.run(ids((1, 30), (3, 10))) == 30
    assert house.run(ids((2, 30), (3, 10))) == 30
    assert house.table.copies == 0


def test_the_longest_unused_slot_goes_first() -> None:
    house = House(2)
    for token in (1, 2, 1, 3):
        house.run(ids((token, 30)))
    assert house.run(ids((1, 30))) == 30
    assert house.run(ids((2, 30))) == 0


def test_what_a_slot_loses_is_kept_outside_and_comes_back() -> None:
    house = House(1, keep_tokens=100)
    house.run(ids((1, 40)))
    house.run(ids((2, 40)))
    assert house.run(ids((1, 40), (5, 5))) == 40
    assert house.run(ids((2, 40))) == 40


def test_branches_of_a_text_are_kept_too() -> None:
    house = House(1, keep_tokens=200)
    house.run(ids((1, 40), (2, 40)))
    assert house.run(ids((1, 40), (3, 40))) == 40
    assert house.run(ids((1, 40), (2, 40))) == 80


def test_the_kept_texts_stay_within_their_bound_and_the_longest_unused_goes() -> None:
    house = House(1, keep_tokens=100)
    for token in (1, 2, 3, 1, 4):  # 1 is used again before 4 comes
        house.run(ids((token, 40)))
        assert house.slots.kept.nbytes <= 100 * BYTES
    assert house.run(ids((1, 40))) == 40
    assert house.run(ids((2, 40))) == 0


def test_a_text_larger_than_the_bound_and_a_short_one_are_not_kept() -> None:
    house = House(1, keep_tokens=50)
    for text in (ids((1, 60)), ids((2, LEAST_KEPT - 1)), ids((3, LEAST_KEPT))):
        house.run(text)
    assert len(house.slots.kept) == 0
    house.run(ids((4, 20)))
    assert len(house.slots.kept) == 1


def test_a_kept_text_replaces_those_it_begins_with() -> None:
    kept = KeptTexts(1000)
    for text in (ids((1, 20)), ids((1, 20), (2, 5)), ids((3, 7))):
        assert kept.room_for(len(text) * BYTES)
        kept.add(Kept(text, torch.from_numpy(text)))
    assert len(kept) == 2
    assert kept.nbytes == (25 + 7) * BYTES
    assert kept.holds(ids((1, 20)))
    assert not kept.holds(ids((3, 8)))


def test_a_running_text_lends_what_it_has() -> None:
    house = House(2)
    first = ids((1, 50))
    slot = house.slots.take(first)
    house.slots.begin(slot, first, ())
    house.table.rows[slot, :30] = 1
    other = house.slots.take(first)
    assert house.slots.begin(other, first, [(slot, first[:30])]) == 30
    assert house.table.rows[other, :30].tolist() == [1] * 30


def test_a_slot_whose_owner_never_began_has_what_it_had() -> None:
    house = House(1)
    house.run(ids((1, 30)))
    slot = house.slots.take(ids((2, 5)))
    house.slots.give_back(slot, ids((9, 9)))
    assert house.run(ids((1, 30))) == 30


def test_without_a_cache_nothing_is_used_again() -> None:
    slots = Slots(1)
    for _ in range(2):
        slot = slots.take(ids((1, 30)))
        assert slots.begin(slot, ids((1, 30)), ()) == 0
        slots.give_back(slot, ids((1, 30)))


texts = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), min_size=1, max_size=4).map(lambda runs: ids(*runs))


@settings(max_examples=60, deadline=None)
@given(slots=st.integers(1, 3), keep=st.integers(0, 150), story=st.lists(texts, max_size=12))
def test_whatever_is_used_again_is_right_and_the_bound_is_kept(slots: int, keep: int, story: list[Ids]) -> None:
    """`House.run` compares every reused position with the text it should hold."""
    house = House(slots, keep)
    for text in story:
        house.run(text)
        kept = house.slots.kept
        assert kept.nbytes <= keep * BYTES
        assert house.slots.free == slots
