"""Reading the measured table between its points."""

import numpy as np
import pytest

from placement.kernels import GATHERING, SCANNING, STREAMING, Kernels, around, gathering
from profiles.hardware import DENSITIES, LEVEL_BYTES, Around, Cpu, FormatPace, Pace, WidthPace


def pace(streaming: float) -> Pace:
    """Gathering is slower than streaming, the more so the fewer fire."""
    return Pace(streaming=streaming, scanning=streaming / 2, gathering=tuple(streaming * (i + 1) / 10 for i in range(len(DENSITIES))))


def width(k: int, seconds: float, cached: float, memory: float) -> WidthPace:
    return WidthPace(width=k, region_seconds=seconds, bank_seconds=10 * seconds, cached=pace(cached), memory=pace(memory))


WIDTHS = (width(256, 4e-6, 20e9, 10e9), width(1024, 1e-6, 40e9, 20e9))
CPU = Cpu(
    name="a CPU",
    measured=True,
    cores=2,
    ram_bytes=10**9,
    formats=(
        FormatPace(
            format="int4", cached=Around(layer_seconds=1, step_seconds=5), memory=Around(layer_seconds=3, step_seconds=6), widths=WIDTHS
        ),
    ),
)
CACHED, MEMORY = (np.array([float(LEVEL_BYTES[level])]) for level in ("cached", "memory"))


def test_at_a_measured_width_it_is_what_was_measured() -> None:
    found = Kernels.of(CPU, "int4", 1024)
    assert (found.region_seconds, found.bank_seconds) == pytest.approx((1e-6, 10e-6))
    for footprint, streaming in ((CACHED, 40e9), (MEMORY, 20e9)):
        reading = found.per_byte(footprint)[0]
        assert reading[STREAMING] == pytest.approx(1 / streaming)
        assert reading[SCANNING] == pytest.approx(2 / streaming)
        assert reading[GATHERING:] == pytest.approx([10 / (i + 1) / streaming for i in range(len(DENSITIES))])


def test_between_two_widths_a_row_costs_something_of_its_own_and_its_bytes() -> None:
    """At 512, 1 / width is a third of the way from 1024 to 256."""
    found = Kernels.of(CPU, "int4", 512)
    assert found.cached[STREAMING] == pytest.approx((2 / 3) / 40e9 + (1 / 3) / 20e9)
    assert found.region_seconds == pytest.approx(2e-6)


@pytest.mark.parametrize(("asked", "measured"), [(32, 256), (8192, 1024)])
def test_beyond_the_table_its_last_entry_goes_on(asked: int, measured: int) -> None:
    beyond, last = Kernels.of(CPU, "int4", asked), Kernels.of(CPU, "int4", measured)
    assert beyond.memory == pytest.approx(last.memory)
    assert beyond.bank_seconds == pytest.approx(last.bank_seconds)


def test_between_the_levels_it_goes_with_the_logarithm_of_what_is_read() -> None:
    found = Kernels.of(CPU, "int4", 1024)
    between = np.sqrt(CACHED * MEMORY)
    assert found.per_byte(between)[0, STREAMING] == pytest.approx((1 / 40e9 + 1 / 20e9) / 2)
    assert found.per_byte(np.array([0.0]))[0] == pytest.approx(found.cached)
    assert found.per_byte(100 * MEMORY)[0] == pytest.approx(found.memory)


def test_densities_are_read_per_layer_and_cut() -> None:
    readings = Kernels.of(CPU, "int4", 1024).per_byte(np.concatenate((CACHED, MEMORY)))
    density = np.array([[DENSITIES[0], DENSITIES[-1]], [0.0, (DENSITIES[1] * DENSITIES[2]) ** 0.5]])  # [L, J]
    found = gathering(readings, density)
    assert found[0] == pytest.approx([readings[0, GATHERING], readings[1, -1]])
    assert found[1] == pytest.approx([readings[0, GATHERING], readings[1, GATHERING + 1 : GATHERING + 3].mean()])


def test_a_format_that_was_not_measured_takes_the_last_ones_rates() -> None:
    assert CPU.of("float32") is CPU.formats[-1]


def test_what_is_around_the_kernels_goes_the_same_way() -> None:
    assert around(CPU, "int4", 0.0) == (1, 5)
    assert around(CPU, "int4", float(np.sqrt(CACHED * MEMORY)[0])) == pytest.approx((2, 5.5))
    assert around(CPU, "int4", 1e12) == (3, 6)
