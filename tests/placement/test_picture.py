"""The picture of a plan: a PNG, whole, without a display."""

from pathlib import Path

from placement.picture import draw
from placement.plan import solve
from tests.placement.makers import MACHINE, manifest_of, profile_of


def test_it_is_a_png_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    plan = solve(manifest_of(), profile_of(), MACHINE, vram_bytes=None, ram_bytes=10**9, context=64, slots=2)
    draw(plan, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.png"]
