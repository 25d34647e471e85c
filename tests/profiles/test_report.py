"""The table says what was counted, against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from profiles.firing import FiringProfile
from profiles.report import Heat, table
from tests.profiles.making import make_profile


def hand_made() -> FiringProfile:
    """Two layers of five neurons, ten tokens. Layer 0: one hot neuron. Layer 1: all alike."""
    fired = np.array([[8, 1, 1, 0, 0], [4, 4, 4, 4, 4]], np.uint32)
    first = np.array([[4, 0, 1, 0, 0], [4, 1, 1, 1, 1]], np.uint32)
    return FiringProfile(fired, fired, np.array([10, 10], np.uint32), 10, first, "f" * 64, "a text of ours")


def test_numbers_per_layer() -> None:
    heat = Heat.of(hand_made(), 2)
    assert heat.sparsity == pytest.approx([0.8, 0.6])  # 10 and 20 of 50 chances
    assert heat.skew == pytest.approx([0.2, 0.8])
    assert heat.overlap == pytest.approx([1.0, 0.0])  # hottest of five: 0 and 0; 0 and 1
    assert heat.coverage == pytest.approx([4 / 5, 0 / 12])


def test_numbers_of_the_whole_model() -> None:
    heat = Heat.of(hand_made(), 1)
    assert heat.sparsity == pytest.approx([0.7])
    assert heat.skew == pytest.approx([0.5])  # 8 + 4·4 = 24 of 30: five of ten neurons
    assert heat.coverage == pytest.approx([4 / 17])  # neurons 0 and 5, the hottest two of the first half


def test_experts_of_a_layer_count_together_over_the_tokens_that_reached_them() -> None:
    fired = np.array([[5, 0], [1, 1]], np.uint32)
    profile = FiringProfile(fired, fired, np.array([5, 1], np.uint32), 6, fired, "f", "c", n_experts=2)
    heat = Heat.of(profile, 1)
    assert heat.sparsity == pytest.approx([1 - 7 / 12])
    assert heat.skew == pytest.approx([0.5])  # 6 of 7 firings by two of four
    assert "1 layers × 2 experts × 2 neurons" in table(profile)


def test_the_table_has_a_line_a_layer_and_one_for_the_model() -> None:
    text = table(hand_made())
    lines = text.splitlines()
    assert lines[0] == "2 layers × 5 neurons, 10 tokens"
    assert "a text of ours" in lines[1]
    rows = [line.split() for line in lines[4:8]]
    assert rows[0] == ["layer", "sparsity", "skew", "overlap", "coverage"]
    assert rows[1] == ["0", "80.0", "%", "20.0", "%", "100.0", "%", "80.0", "%"]
    assert rows[3][0] == "model"
    assert "never exactly zero" not in text


def test_what_was_never_seen_is_a_dash() -> None:
    profile = make_profile(layers=1)
    silent = replace(profile, fired=profile.fired * 0, first_half=profile.first_half * 0)
    assert table(silent).splitlines()[5].split() == ["0", "100.0", "%", "–", "–", "–"]


def test_a_model_that_is_never_silent_is_said_to_be_so() -> None:
    everywhere = np.full((1, 4), 6, np.uint32)
    profile = FiringProfile(everywhere, everywhere, np.array([6], np.uint32), 6, everywhere // 2, "f", "c")
    assert "never exactly zero" in table(profile)
