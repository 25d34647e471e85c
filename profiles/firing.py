"""FiringProfile: how often each neuron fires. The type and its file; measuring is `profiles/record.py`. Torch-free."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.errors import BadArtefact, WrongModel
from models.paths import whole_file

VERSION = 1
REMEDY = "record it again with `profiles record`"
Counts = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FiringProfile:
    """Counts over a corpus. Banks are numbered layer · E + expert.

    `fired` [L·E, N]: tokens at which the activation was not zero. `gate_passed` [L·E, N]: tokens at which the gate alone
    was not zero (differs from `fired` for dReLU). `routed` [L·E]: tokens that reached the bank. `tokens`: tokens in all.
    `first_half` [L·E, N] is `fired` over the first half of the text, to show how stable the hot set is.
    """

    fired: Counts
    gate_passed: Counts
    routed: Counts
    tokens: int
    first_half: Counts
    fingerprint: str
    corpus: str

    def __post_init__(self) -> None:
        assert self.fired.shape == self.gate_passed.shape == self.first_half.shape
        assert self.routed.shape == self.fired.shape[:1]

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
        return np.argsort(-self.fired.astype(np.int64), axis=1, kind="stable")

    @property
    def sparsity(self) -> NDArray[np.float64]:
        """float64 [L·E]: mean share of a bank's neurons that stay silent when a token reaches it."""
        reached = np.maximum(self.routed.astype(np.float64), 1.0)
        return 1.0 - self.fired.mean(axis=1) / reached

    def skew(self, share: float = 0.8) -> NDArray[np.float64]:
        """float64 [L·E]: the smallest share of a bank's neurons that makes `share` of its firings."""
        hottest = -np.sort(-self.fired.astype(np.float64), axis=1)
        covered = np.cumsum(hottest, axis=1) / np.maximum(hottest.sum(axis=1, keepdims=True), 1.0)
        return ((covered < share).sum(axis=1) + 1) / self.fired.shape[1]

    def overlap(self, share: float = 0.2) -> NDArray[np.float64]:
        """float64 [L·E]: how much of the hottest `share` of neurons is the same in both halves of the text."""
        size = max(1, round(share * self.fired.shape[1]))
        second = self.fired.astype(np.int64) - self.first_half
        one = np.argsort(-self.first_half.astype(np.int64), axis=1, kind="stable")[:, :size]
        two = np.argsort(-second, axis=1, kind="stable")[:, :size]
        return np.array([len(np.intersect1d(a, b)) / size for a, b in zip(one, two, strict=True)])


def save_profile(profile: FiringProfile, path: Path) -> None:
    described = {"version": VERSION, "tokens": profile.tokens, "fingerprint": profile.fingerprint, "corpus": profile.corpus}
    arrays = {"fired": profile.fired, "gate_passed": profile.gate_passed, "routed": profile.routed, "first_half": profile.first_half}
    with whole_file(path) as part:
        save_file(arrays, part, metadata={"thermocline.firing": json.dumps(described)})


def load_profile(path: Path, fingerprint: str | None = None) -> FiringProfile:
    """Reads a profile; WrongModel when `fingerprint` is given and is not the one it was recorded from."""
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads((file.metadata() or {})["thermocline.firing"])
            arrays = {name: file.get_tensor(name) for name in ("fired", "gate_passed", "routed", "first_half")}
    except FileNotFoundError:
        raise BadArtefact(path, "no such file", REMEDY) from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise BadArtefact(path, f"is not a firing profile ({error})", REMEDY) from None
    if described.get("version") != VERSION:
        raise BadArtefact(path, f"has format version {described.get('version')}, this program writes {VERSION}", REMEDY)
    profile = FiringProfile(**arrays, tokens=described["tokens"], fingerprint=described["fingerprint"], corpus=described["corpus"])
    if fingerprint is not None and profile.fingerprint != fingerprint:
        raise WrongModel(path, profile.fingerprint, fingerprint, REMEDY)
    return profile
