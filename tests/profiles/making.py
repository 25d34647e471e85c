"""Makers of small profiles."""

import numpy as np

from profiles.firing import FiringProfile

FINGERPRINT = "0123456789abcdef" * 4


def make_profile(
    *, layers: int = 2, experts: int = 1, neurons: int = 10, tokens: int = 1000, fingerprint: str = FINGERPRINT
) -> FiringProfile:
    """Random counts that a model could have made: first half ≤ fired ≤ gate passed ≤ routed ≤ tokens."""
    random = np.random.default_rng(0)
    shape = (layers * experts, neurons)
    routed = random.integers(tokens // 2, tokens, shape[0], endpoint=True) if experts > 1 else np.full(shape[0], tokens)
    passed = random.integers(0, routed[:, None], shape, endpoint=True)
    fired = random.integers(0, passed, endpoint=True)
    first = random.integers(0, fired, endpoint=True)
    counts = [array.astype(np.uint32) for array in (fired, passed, routed, first)]
    return FiringProfile(counts[0], counts[1], counts[2], tokens, counts[3], fingerprint, "a text", experts)
