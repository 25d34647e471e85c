"""Numbers: what the engine has done since it began and what it holds now, for whoever watches. Knows no HTTP and no metrics format.

The engine makes a new one after every step, so that another thread that reads `engine.numbers` sees one moment, without a lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.sequence import Finish


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model that is split between two sides has counted since it was made; totals that only grow."""

    waiting_seconds: float = 0.0  # the thread that calls it waited for the GPU
    gpu_seconds: float = 0.0
    fired_hot: int = 0  # neurons, in steps that were looked at
    fired_cold: int = 0

    def __sub__(self, before: "Reading") -> "Reading":
        return Reading(
            self.waiting_seconds - before.waiting_seconds,
            self.gpu_seconds - before.gpu_seconds,
            self.fired_hot - before.fired_hot,
            self.fired_cold - before.fired_cold,
        )


@dataclass(frozen=True, slots=True)
class Numbers:
    """Totals since the start, then the present state. Tokens, choices, steps, bytes; seconds of the engine's clock."""

    prompt_tokens: int = 0  # read by the model
    cached_tokens: int = 0  # of prompts, not read again: their keys and values were there
    written_tokens: int = 0
    finished: Mapping[Finish, int] = field(default_factory=dict)  # choices, by how they ended
    failed: int = 0  # choices that a failed step ended
    prompt_steps: int = 0
    decode_steps: int = 0
    prompt_seconds: float = 0.0  # inside prompt steps, from the schedule to the last token committed
    decode_seconds: float = 0.0
    model_seconds: float = 0.0  # of both, inside the model
    waiting_seconds: float = 0.0  # of those, the engine's thread waited for the GPU
    gpu_seconds: float = 0.0  # the GPU worked; it does so beside the CPU
    decode_waiting_seconds: float = 0.0  # the parts of both that decode steps took
    decode_gpu_seconds: float = 0.0
    fired_hot: int = 0  # firings counted in the steps that were watched: on the GPU …
    fired_cold: int = 0  # … and on the CPU
    slots: int = 0
    slots_busy: int = 0
    waiting: int = 0  # choices without a slot
    kept_bytes: int = 0  # keys and values of old texts outside the slots
    kept_limit_bytes: int = 0
    kept_texts: int = 0

    @property
    def cpu_seconds(self) -> float:
        """The engine's thread and its helpers computed: all of the steps but the waiting."""
        return self.prompt_seconds + self.decode_seconds - self.waiting_seconds

    @property
    def decode_cpu_seconds(self) -> float:
        return self.decode_seconds - self.decode_waiting_seconds

    @property
    def hot_share(self) -> float | None:
        """Share of the counted firings that the GPU served; None before any was counted."""
        total = self.fired_hot + self.fired_cold
        return self.fired_hot / total if total else None
