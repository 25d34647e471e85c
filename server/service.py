"""Service: what the HTTP side may know of the running model. Knows no devices and no weights."""

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from models.chat import ChatTemplate
from models.tokenizer import Tokenizer
from placement.artefact import Placement
from server.bridge import Bridge
from server.grammars import Grammars
from server.held import Held
from server.watching import Watch


@dataclass(frozen=True, slots=True)
class Service:
    """`context`: tokens that fit a slot. `vocab`: rows of the model's head. `expected_per_second`: the placement's prediction.

    `chat` is None when the model has no chat template; `plan` and `held` are what was planned and what was loaded.
    """

    model: str
    created: int  # seconds since 1970
    tokenizer: Tokenizer
    bridge: Bridge
    context: int
    vocab: int
    eos: frozenset[int]
    expected_per_second: float | None
    watch: Watch
    grammars: Grammars
    chat: ChatTemplate | None = None
    log_prompts: bool = False
    plan: Placement | None = None
    held: Held | None = None
    large_texts: Executor = field(default_factory=partial(ThreadPoolExecutor, 1))  # see `api/reading.py`; no thread until it is used
