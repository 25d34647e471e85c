"""A firing profile in words and numbers: per layer how sparse, how skewed, how stable. Knows no model, only the counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiles.firing import FiringProfile
from profiles.heat import Counts, coverage_of, cumulative, overlap_of, skew_of

FIRINGS = 0.8  # skew: the neurons that make this share of the firings
HOT = 0.2  # overlap and coverage: of the hottest such share of the neurons
FIRINGS_SHOWN, HOT_SHOWN = f"{100 * FIRINGS:.0f} %", f"{100 * HOT:.0f} %"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heat:
    """One number a row: a layer each, or one for the whole model. Shares between 0 and 1; NaN where nothing was seen."""

    sparsity: Floats
    skew: Floats
    overlap: Floats
    coverage: Floats
    curves: Floats  # [R, N]: share of the firings that the 1, 2, … N hottest neurons make

    @classmethod
    def of(cls, profile: FiringProfile, rows: int) -> "Heat":
        """The neurons of all experts of a layer count together: `rows` is the number of layers, or 1."""
        fired, first, second = (counts.reshape(rows, -1) for counts in (profile.fired, profile.first_half, profile.second_half))
        return cls(
            sparsity=silence(fired, profile.routed.reshape(rows, -1)),
            skew=skew_of(fired, FIRINGS),
            overlap=overlap_of(first, second, HOT),
            coverage=coverage_of(first, second, HOT),
            curves=cumulative(fired),
        )


def silence(fired: Counts, routed: Counts) -> Floats:
    """fired [R, banks·N], routed [R, banks] -> float64 [R]: share of neurons silent at a token that reaches them."""
    chances = routed.sum(axis=1, dtype=np.float64) * (fired.shape[1] // routed.shape[1])
    return np.where(chances > 0, 1.0 - fired.sum(axis=1, dtype=np.float64) / np.maximum(chances, 1.0), np.nan)


def n_layers(profile: FiringProfile) -> int:
    return len(profile.routed) // profile.n_experts


def is_never_silent(profile: FiringProfile) -> bool:
    """Every neuron fires whenever it can: SiLU and GELU are never exactly zero, and no threshold was calibrated."""
    return bool((profile.fired == profile.routed[:, None]).all())


def table(profile: FiringProfile) -> str:
    """The profile as lines of text, a line a layer and one for the model."""
    layers, whole = Heat.of(profile, n_layers(profile)), Heat.of(profile, 1)
    lines = [*heading(profile), "", f"{'layer':>7}{'sparsity':>12}{'skew':>12}{'overlap':>12}{'coverage':>12}"]
    lines += [line(str(row), layers, row) for row in range(len(layers.sparsity))]
    lines += [line("model", whole, 0), "", *LEGEND]
    return "\n".join([*lines, NEVER_SILENT] if is_never_silent(profile) else lines)


def heading(profile: FiringProfile) -> list[str]:
    neurons = profile.fired.shape[1]
    experts = f" × {profile.n_experts} experts" if profile.n_experts > 1 else ""
    return [
        f"{n_layers(profile)} layers{experts} × {neurons} neurons, {profile.tokens:,} tokens",
        f"text: {profile.corpus}",
        f"model: {profile.fingerprint}",
    ]


def line(name: str, heat: Heat, row: int) -> str:
    return f"{name:>7}" + "".join(f"{percent(column[row]):>12}" for column in (heat.sparsity, heat.skew, heat.overlap, heat.coverage))


def percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


LEGEND = (
    "sparsity  share of neurons that are silent at a token, on average",
    f"skew      smallest share of neurons that makes {FIRINGS_SHOWN} of the firings",
    f"overlap   how much of the hottest {HOT_SHOWN} of neurons is the same in both halves of the text",
    f"coverage  share of the second half's firings made by the hottest {HOT_SHOWN} of the first half",
)
NEVER_SILENT = (
    "No neuron was ever silent: SiLU and GELU are never exactly zero, and no threshold is calibrated; a neuron that is reached fires."
)
