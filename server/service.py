"""Service: what the HTTP side may know of the running model. Knows no devices and no weights."""

from dataclasses import dataclass

from models.tokenizer import Tokenizer
from server.bridge import Bridge


@dataclass(frozen=True, slots=True)
class Service:
    """`context`: tokens that fit a slot. `vocab`: rows of the model's head. `expected_per_second`: the placement's prediction."""

    model: str
    created: int  # seconds since 1970
    tokenizer: Tokenizer
    bridge: Bridge
    context: int
    vocab: int
    eos: frozenset[int]
    expected_per_second: float | None
