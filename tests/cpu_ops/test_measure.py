import pytest
import torch

import cpu_ops
from cpu_ops import measure
from cpu_ops.kernels import decode, ffn, linear
from models.bits import FORMAT_NAMES, FormatName


@pytest.fixture
def a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.0)


@pytest.mark.usefixtures("a_moment")
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_rates_are_between_a_floppy_and_a_cache(name: FormatName) -> None:
    found = measure.width_pace(name, 256, torch.empty(2**20, dtype=torch.uint8), 2**18, (0.1, 1.0))
    assert found.region_seconds >= 0 <= found.bank_seconds
    for pace in (found.cached, found.memory):
        assert len(pace.gathering) == 2
        assert all(1e5 < rate < 1e13 for rate in (pace.streaming, pace.scanning, *pace.gathering))


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_the_neurons_that_are_planted_fire_and_no_others(name: FormatName, density: float) -> None:
    """Every row is all ones: a neuron that fires adds width · width to every column."""
    firing = measure.Buffer.over(torch.empty(2**18, dtype=torch.uint8), name, 64).firing(density)
    torch.testing.assert_close(firing(), torch.full((1, 64), firing.fired * 64.0 * 64.0), rtol=1e-2, atol=1e-3)
    assert abs(firing.fired - density * len(firing.bank)) <= 0.05 * len(firing.bank)


def test_a_buffer_is_one_matrix_and_one_bank_of_the_same_bytes() -> None:
    buffer = measure.Buffer.over(torch.empty(10_000, dtype=torch.uint8), "bf16", 64)
    assert len(buffer.matrix) == 3 * len(buffer.gate) == 3 * (10_000 // (3 * 128))
    assert torch.equal(buffer.down.decode(), torch.ones(len(buffer.gate), 64))


def test_fixed_seconds_are_where_the_line_through_two_sizes_begins() -> None:
    assert measure.intercept((10, 30), 5.0, 9.0) == pytest.approx(3.0)
    assert measure.intercept((10, 30), 5.0, 50.0) == 0.0  # never less than nothing
    assert measure.intercept((10, 30), 5.0, 4.0) == 5.0  # nor more than the smaller
    assert measure.intercept((10, 30), -1.0, -4.0) == 0.0  # of differences, which noise may turn round


def test_what_is_played_runs_again_on_the_same_memory() -> None:
    buffer = measure.Buffer.over(torch.empty(10_000, dtype=torch.uint8), "bf16", 64)
    found: list[torch.Tensor] = []
    played = measure.Played.of(lambda: found.append(buffer.multiply()))
    before = found[0].clone()
    found[0].zero_()
    played()
    assert torch.equal(found[0], before)
    assert before.any()


def test_a_remainder_lost_in_noise_is_still_a_rate() -> None:
    assert measure.rate(1000, 2.0, 1.0) == 1000
    assert measure.rate(1000, 2.0, 3.0) == pytest.approx(1000 / 0.2)


def test_warming_up_leaves_nothing_to_compile() -> None:
    from_all = list(FORMAT_NAMES)
    cpu_ops.warm_up(from_all)
    before = compiled_signatures()
    cpu_ops.warm_up(from_all)
    assert compiled_signatures() == before > 0


def compiled_signatures() -> int:
    return sum(len(getattr(kernel, "signatures", [])) for kernel in (decode.decode, ffn.ffn, linear.linear))


def test_what_torch_computes_is_not_played_back_and_so_not_measured() -> None:
    x = torch.ones(1)
    with pytest.raises(AssertionError, match="mul"):
        measure.Played.of(lambda: x * 2)
