"""Slots: the places of the KV cache, what lies in them, and what of it a new prompt can use. Decides; the cache moves.

What a text leaves stays in its slot until another text needs the slot, and then goes to the kept ones. Keys and values of a
running text can be copied as well: a token's depend on nothing that comes after it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Protocol

from torch import Tensor

from server.kept import NOTHING, Ids, Kept, KeptTexts, common

LEAST_KEPT = 16  # tokens: fewer are read again as fast as they are found


class Cache(Protocol):
    """What moves keys and values, as `models.kv_cache.KvCache` does."""

    @property
    def bytes_per_token(self) -> int: ...

    def copy(self, source: int, slot: int, count: int) -> None: ...

    def save(self, slot: int, count: int) -> Tensor: ...

    def restore(self, saved: Tensor, slot: int, count: int) -> None: ...


class Slots:
    """`count` slots. Without a `cache` nothing is used again."""

    def __init__(self, count: int, cache: Cache | None = None, keep_bytes: int = 0) -> None:
        self.count, self.kept, self._cache = count, KeptTexts(keep_bytes), cache
        self._free: OrderedDict[int, Ids] = OrderedDict((slot, NOTHING) for slot in range(count))  # longest unused first
        self._left: dict[int, Ids] = {}  # what an earlier text left in a slot whose new owner has not begun

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, prompt: Ids) -> int:
        """A free slot: the one whose text begins most like `prompt`, and of those the longest unused."""
        slot = max(self._free, key=lambda slot: common(self._free[slot], prompt))
        self._left[slot] = self._free.pop(slot)
        return slot

    def give_back(self, slot: int, tokens: Ids) -> None:
        """The slot is free, with the keys and values of `tokens` in it, or of what it had when its owner has not begun."""
        self._free[slot] = self._left.pop(slot, tokens)
        if not len(self._free[slot]):
            self._free.move_to_end(slot, last=False)

    def begin(self, slot: int, prompt: Ids, running: Iterable[tuple[int, Ids]]) -> int:
        """Brings keys and values of as much of `prompt` into `slot` as lie anywhere; how many tokens that is.

        `running`: slots of texts that have begun, and the tokens whose keys and values lie in them.
        """
        left = self._left.pop(slot)
        if self._cache is None:
            return 0
        others = dict(chain(self._free.items(), self._left.items(), running))
        shared, bring = common(left, prompt), None
        for other, tokens in others.items():
            if (count := common(tokens, prompt)) > shared:
                shared, bring = count, partial(self._cache.copy, other, slot)
        count, kept = self.kept.best(prompt)
        if kept is not None and count > shared:
            self.kept.use(kept)
            shared, bring = count, partial(self._cache.restore, kept.saved, slot)
        self._keep(self._cache, slot, left, shared if bring is None else 0, others.values())
        if bring is not None:
            bring(shared)
        return shared

    def _keep(self, cache: Cache, slot: int, left: Ids, stays: int, others: Iterable[Ids]) -> None:
        """Saves what lies in `slot`, of which only the first `stays` tokens stay, unless it is little or lies elsewhere too."""
        if len(left) - stays < LEAST_KEPT or self.kept.holds(left) or any(common(tokens, left) == len(left) for tokens in others):
            return
        if self.kept.room_for(len(left) * cache.bytes_per_token):
            self.kept.add(Kept(left, cache.save(slot, len(left))))
