"""Pace: how many tokens of prompts go into one step, so that nobody waits longer for it than a bound. Learns from every step; has no clock.

A step of c tokens takes about a + b·c seconds. The next one gets c · bound ÷ seconds tokens, which settles where a + b·c is the
bound, whatever a and b are; they grow while a prompt gets longer.
"""

LEARNT_FROM = 16  # tokens: of fewer, the time says nothing about many
LONGEST_SECONDS = 1.0  # of a step when nobody is writing: a cancel, a new request or the end of the server waits for it


class Pace:
    """`most`: tokens of the largest step. `stall_seconds`: how long those who write may wait for one."""

    def __init__(self, most: int, stall_seconds: float = 0.2) -> None:
        self.most, self.stall_seconds = most, stall_seconds
        self._seconds_per_token = 0.0  # of the last step

    def tokens(self, bound_seconds: float) -> int:
        """At least one, at most `most`; before anything was measured, `most`."""
        return max(1, int(min(self.most, bound_seconds / self._seconds_per_token))) if self._seconds_per_token else self.most

    def took(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens has taken so long."""
        if tokens >= LEARNT_FROM or seconds > self.stall_seconds:
            self._seconds_per_token = seconds / tokens
