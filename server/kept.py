"""KeptTexts: keys and values of old texts outside the slots, up to a bound in bytes; what was longest unused goes first.

Knows which tokens a text has; what its keys and values are is the cache's business.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]
NOTHING: Ids = np.zeros(0, dtype=np.int64)


def common(first: Ids, second: Ids) -> int:
    """How many tokens two texts begin with alike."""
    count = min(len(first), len(second))
    differs = first[:count] != second[:count]
    return int(differs.argmax()) if differs.any() else count


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The keys and values of `tokens`, as the cache has saved them."""

    tokens: Ids
    saved: Tensor


class KeptTexts:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.nbytes = 0
        self._texts: OrderedDict[int, Kept] = OrderedDict()  # by identity, longest unused first

    def __len__(self) -> int:
        return len(self._texts)

    def best(self, prompt: Ids) -> tuple[int, Kept | None]:
        """The text that begins most like `prompt`, and how many tokens they share."""
        found = max(self._texts.values(), key=lambda kept: common(kept.tokens, prompt), default=None)
        return (0, None) if found is None else (common(found.tokens, prompt), found)

    def use(self, kept: Kept) -> None:
        """It was of use just now."""
        self._texts.move_to_end(id(kept))

    def holds(self, tokens: Ids) -> bool:
        """Whether all of `tokens` are the beginning of a kept text."""
        return any(common(kept.tokens, tokens) == len(tokens) for kept in self._texts.values())

    def room_for(self, nbytes: int) -> bool:
        """Makes room by forgetting the longest unused; False when there can never be enough."""
        if nbytes > self.limit_bytes:
            return False
        while self.nbytes + nbytes > self.limit_bytes:
            self._forget(next(iter(self._texts)))  # the longest unused
        return True

    def add(self, kept: Kept) -> None:
        """Room was made before. A text that this one begins with is of no more use."""
        for key in [key for key, old in self._texts.items() if common(old.tokens, kept.tokens) == len(old.tokens)]:
            self._forget(key)
        self._texts[id(kept)] = kept
        self.nbytes += kept.saved.nbytes

    def _forget(self, key: int) -> None:
        self.nbytes -= self._texts.pop(key).saved.nbytes
