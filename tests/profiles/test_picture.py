"""The picture is a PNG, of any shape of profile, and shows what the counts say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from profiles.picture import draw, points, shortened
from tests.profiles.making import make_profile


@pytest.mark.parametrize(("layers", "experts", "neurons"), [(1, 1, 1), (2, 1, 10), (40, 1, 700), (2, 4, 3)])
def test_a_png_is_drawn_whole(tmp_path: Path, layers: int, experts: int, neurons: int) -> None:
    draw(make_profile(layers=layers, experts=experts, neurons=neurons), tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data.endswith(b"IEND\xaeB`\x82")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_a_silent_profile_can_be_drawn(tmp_path: Path) -> None:
    profile = make_profile()
    silent = replace(profile, fired=profile.fired * 0, first_half=profile.first_half * 0)
    draw(silent, tmp_path / "p.png")
    draw(profile, tmp_path / "q.png")
    assert (tmp_path / "p.png").read_bytes() != (tmp_path / "q.png").read_bytes()


@pytest.mark.parametrize("neurons", [1, 3, 499, 500, 11008])
def test_a_curve_begins_at_nothing_and_ends_at_everything(neurons: int) -> None:
    curve = np.arange(1, neurons + 1) / neurons
    x, y = points(curve)
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert len(x) <= 501
    assert np.allclose(x, y)


def test_a_long_name_is_shortened() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"
