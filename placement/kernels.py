"""What the CPU's kernels take, read off the measured table between its points. Knows formats and widths, no models.

A reading has seconds per byte in the order of PARTS. Between two widths they go with 1 / width (a row costs something of its
own, and its bytes); between the two levels, and between densities, with the logarithm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bits import FormatName
from profiles.hardware import DENSITIES, LEVEL_BYTES, Cpu, Pace, WidthPace

STREAMING, SCANNING, GATHERING = 0, 1, 2  # the parts of a reading: the first two, then one for each of DENSITIES

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Of one format at one width. `cached`, `memory` [2 + DENSITIES]: seconds per byte of either level."""

    region_seconds: float
    bank_seconds: float
    cached: Floats
    memory: Floats

    @classmethod
    def of(cls, cpu: Cpu, name: FormatName, width: int) -> "Kernels":
        table = cpu.of(name).widths
        return cls(
            region_seconds=_at(width, table, [each.region_seconds for each in table]),
            bank_seconds=_at(width, table, [each.bank_seconds for each in table]),
            cached=_all_at(width, table, [each.cached for each in table]),
            memory=_all_at(width, table, [each.memory for each in table]),
        )

    def per_byte(self, footprint: Floats) -> Floats:
        """Bytes that are read again and again [J] -> seconds per byte [J, 2 + DENSITIES]."""
        share = memory_share(footprint)[..., None]
        found: Floats = self.cached * (1.0 - share) + self.memory * share
        return found


def memory_share(footprint: Floats) -> Floats:
    """How far from the cached level to the memory's: 0 to 1."""
    low, high = np.log(LEVEL_BYTES["cached"]), np.log(LEVEL_BYTES["memory"])
    share: Floats = np.clip((np.log(np.maximum(footprint, 1.0)) - low) / (high - low), 0.0, 1.0)
    return share


def around(cpu: Cpu, name: FormatName, footprint: float) -> tuple[float, float]:
    """Seconds of a layer and of a step around their kernels."""
    pace, share = cpu.of(name), float(memory_share(np.array(footprint)))
    parts = [(level.layer_seconds, level.step_seconds) for level in (pace.cached, pace.memory)]
    (layer_cached, step_cached), (layer_memory, step_memory) = parts
    return layer_cached + share * (layer_memory - layer_cached), step_cached + share * (step_memory - step_cached)


def gathering(per_byte: Floats, density: Floats) -> Floats:
    """Readings [J, 2 + DENSITIES] at densities [L, J] -> seconds per gathered byte [L, J]."""
    place = np.interp(np.log(np.maximum(density, 1e-9)), np.log(DENSITIES), np.arange(len(DENSITIES)))
    before = np.minimum(place.astype(np.int64), len(DENSITIES) - 2)
    cuts, share = np.arange(density.shape[1]), place - before
    table = per_byte[:, GATHERING:]
    found: Floats = table[cuts, before] * (1.0 - share) + table[cuts, before + 1] * share
    return found


def _all_at(width: int, table: tuple[WidthPace, ...], paces: list[Pace]) -> Floats:
    columns = zip(*((1 / pace.streaming, 1 / pace.scanning, *(1 / rate for rate in pace.gathering)) for pace in paces), strict=True)
    return np.array([_at(width, table, list(column)) for column in columns])


def _at(width: int, table: tuple[WidthPace, ...], values: list[float]) -> float:
    """The value at a width, by the straight line over 1 / width; beyond the table its last one."""
    return float(np.interp(-1 / width, [-1 / each.width for each in table], values))
