"""FiringProfile: how often each neuron fires. The type and its file; measuring is `profiles/record.py`. Torch-free."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.errors import BadArtefact, WrongModel
from models.paths import whole_file
from profiles.heat import Counts, coverage_of, hottest_first, overlap_of, skew_of

VERSION = 1
REMEDY = "record it again with `profiles record`"
ARRAYS = ("fired", "gate_passed", "routed", "first_half")
DESCRIPTIONS = ("tokens", "fingerprint", "corpus", "n_experts")


@dataclass(frozen=True, slots=True)
class FiringProfile:
    """Counts over a corpus. Banks are numbered layer · E + expert.

    `fired` [L·E, N]: tokens at which the activation was not zero. `gate_passed` [L·E, N]: tokens at which the gate alone
    was not zero (differs from `fired` for dReLU). `routed` [L·E]: tokens that reached the bank. `tokens`: tokens in all.
    `first_half` [L·E, N] is `fired` over the first half of the text, to show how stable the hot set is. `n_experts` is E.
    """

    fired: Counts
    gate_passed: Counts
    routed: Counts
    tokens: int
    first_half: Counts
    fingerprint: str
    corpus: str
    n_experts: int = 1

    def __post_init__(self) -> None:
        assert self.fired.shape == self.gate_passed.shape == self.first_half.shape
        assert self.routed.shape == self.fired.shape[:1]
        assert self.fired.shape[0] % self.n_experts == 0

    @property
    def rate(self) -> NDArray[np.float64]:
        """float64 [L·E, N]: firings per token of the text."""
        return self.fired / max(self.tokens, 1)

    @property
    def gate_rate(self) -> NDArray[np.float64]:
        return self.gate_passed / max(self.tokens, 1)

    @property
    def order(self) -> NDArray[np.int64]:
        """int64 [L·E, N]: each bank's neurons from hottest to coldest; ties by number."""
        return hottest_first(self.fired)

    @property
    def sparsity(self) -> NDArray[np.float64]:
        """float64 [L·E]: mean share of a bank's neurons that stay silent when a token reaches it."""
        reached = np.maximum(self.routed.astype(np.float64), 1.0)
        silent: NDArray[np.float64] = 1.0 - self.fired.mean(axis=1) / reached
        return silent

    @property
    def second_half(self) -> Counts:
        """uint32 [L·E, N]: `fired` over the second half of the text."""
        return self.fired - self.first_half

    def skew(self, share: float = 0.8) -> NDArray[np.float64]:
        """float64 [L·E]: the smallest share of a bank's neurons that makes `share` of its firings."""
        return skew_of(self.fired, share)

    def overlap(self, share: float = 0.2) -> NDArray[np.float64]:
        """float64 [L·E]: how much of the hottest `share` of neurons is the same in both halves of the text."""
        return overlap_of(self.first_half, self.second_half, share)

    def coverage(self, share: float = 0.2) -> NDArray[np.float64]:
        """float64 [L·E]: share of the second half's firings made by the neurons hottest in the first half."""
        return coverage_of(self.first_half, self.second_half, share)


def save_profile(profile: FiringProfile, path: Path) -> None:
    described = {"version": VERSION} | {name: getattr(profile, name) for name in DESCRIPTIONS}
    with whole_file(path) as part:
        save_file({name: getattr(profile, name) for name in ARRAYS}, part, metadata={"thermocline.firing": json.dumps(described)})


def load_profile(path: Path, fingerprint: str | None = None) -> FiringProfile:
    """Reads a profile; WrongModel when `fingerprint` is given and is not the one it was recorded from."""
    try:
        profile = _read(path)
    except FileNotFoundError:
        raise BadArtefact(path, "no such file", REMEDY) from None
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        raise BadArtefact(path, f"is not a firing profile ({error})", REMEDY) from None
    if fingerprint is not None and profile.fingerprint != fingerprint:
        raise WrongModel(path, profile.fingerprint, fingerprint, REMEDY)
    return profile


def _read(path: Path) -> FiringProfile:
    with safe_open(path, framework="numpy") as file:
        described = json.loads((file.metadata() or {})["thermocline.firing"])
        if described["version"] != VERSION:
            raise BadArtefact(path, f"has format version {described['version']}, this program writes {VERSION}", REMEDY)
        arrays = {name: file.get_tensor(name) for name in ARRAYS}
    profile = FiringProfile(
        **_checked(arrays, described["n_experts"]),
        tokens=int(described["tokens"]),
        fingerprint=str(described["fingerprint"]),
        corpus=str(described["corpus"]),
        n_experts=int(described["n_experts"]),
    )
    if not _possible(profile):
        raise ValueError("more firings than tokens")
    return profile


def _checked(arrays: dict[str, Counts], n_experts: int) -> dict[str, Counts]:
    """The arrays, when their types and shapes are those of a profile of `n_experts`; else ValueError."""
    shape = arrays["fired"].shape
    shapes = {name: shape[:1] if name == "routed" else shape for name in ARRAYS}
    wrong = [name for name, array in arrays.items() if array.dtype != np.uint32 or array.shape != shapes[name]]
    if wrong or len(shape) != 2 or 0 in shape or n_experts < 1 or shape[0] % n_experts:
        raise ValueError(f"{', '.join(wrong) or 'fired'} has a wrong type or shape")
    return arrays


def _possible(profile: FiringProfile) -> bool:
    """first half ≤ fired ≤ gate passed ≤ routed ≤ tokens."""
    steps = (profile.first_half, profile.fired, profile.gate_passed, profile.routed[:, None], np.array(profile.tokens))
    return all(bool((less <= more).all()) for less, more in pairwise(steps))
