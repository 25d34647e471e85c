"""Pace: how much work to take on next, so that a bound on time is kept and what is done is never far from being saved."""

import time
from collections.abc import Callable

FIRST_TOKENS = 512
BLOCK_TOKENS = 8192  # hidden states of a block are kept: 4 · H bytes a token, 256 MiB at H = 8192


class Pace:
    """Blocks double from FIRST_TOKENS to BLOCK_TOKENS; under `max_seconds`, no block is begun that would not end in time.

    The first block is always granted, so that there is something to show.
    """

    def __init__(self, max_seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.last = clock, clock()
        self.end = None if max_seconds is None else self.last + max_seconds
        self.granted = 0

    def grant(self) -> int:
        """Tokens of the next block, 0 when there is no time for one. Call it again when that block is done."""
        now = self.clock()
        wanted = min(max(FIRST_TOKENS, 2 * self.granted), BLOCK_TOKENS)
        if self.end is not None and self.granted:
            tokens_per_second = self.granted / max(now - self.last, 1e-9)
            wanted = min(wanted, int((self.end - now) * tokens_per_second))
        self.last, self.granted = now, wanted if wanted >= FIRST_TOKENS else 0
        return self.granted
