"""The table of known cards."""

import pytest

from models.errors import BadValue
from profiles.cards import CARDS, known_card


@pytest.mark.parametrize("name", ["RTX 4090", "rtx 4090", "RTX4090", "4090", "NVIDIA GeForce RTX 4090", "geforce-rtx-4090"])
def test_a_card_is_known_by_any_of_its_names(name: str) -> None:
    card = known_card(name)
    assert (card.name, card.vram_bytes, card.measured) == ("RTX 4090", 24 * 2**30, False)


def test_names_that_differ_by_a_suffix_are_different_cards() -> None:
    names = ("RTX 4070", "RTX 4070 SUPER", "RTX 4070 Ti", "RTX 4070 Ti SUPER")
    assert tuple(known_card(name).name for name in names) == names


def test_every_card_can_be_asked_for_by_its_own_name() -> None:
    for name in CARDS:
        assert known_card(name).name == name


def test_no_card_promises_more_than_its_sheet() -> None:
    """An RTX 4090 reads 1,008 GB/s on paper and sits in a PCIe 4.0 × 16 slot of 31.5 GB/s."""
    card = known_card("RTX 4090")
    assert 0.8 * 1008e9 < card.bandwidth < 1008e9
    assert 0.8 * 31.5e9 < card.to_device == card.to_host < 31.5e9


@pytest.mark.parametrize(("name", "near"), [("RTX 4091", "RTX 4090"), ("3080 super", "RTX 3080"), ("a100", "A100 40GB")])
def test_an_unknown_card_is_told_its_neighbours(name: str, near: str) -> None:
    with pytest.raises(BadValue, match=near):
        known_card(name)


@pytest.mark.parametrize("name", ["", "quantum", "🂡", "rtx"])
def test_what_is_no_card_is_told_the_range(name: str) -> None:
    with pytest.raises(BadValue, match=r"--gpu: .* is not a card we know"):
        known_card(name)
