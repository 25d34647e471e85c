"""A model, a tokenizer and a running service small enough to think about: no weights, real scheduling."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tokenizers
import torch
from torch import Tensor

from models.step import Step
from models.tokenizer import IncrementalDecoder, Tokenizer
from server.bridge import Bridge
from server.detokenize import TextStream
from server.engine import Engine, Forward
from server.grammars import Grammars
from server.pace import Pace
from server.scheduler import Scheduler
from server.sequence import Event, Params, Sequence, generator
from server.service import Service
from server.slots import Slots
from server.watching import Layout, Watch

EOS = 256
VOCAB = 258  # 256 bytes, </s>, <s>
LAYOUT = Layout(n_layers=2, n_experts=1, n_neurons=10, hot=(3, 0))
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ", dtype=np.uint8)


def build_tokenizer(folder: Path) -> Tokenizer:
    """One token per byte; token ids are byte values."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    byte_of = {shown: value for value, shown in enumerate(byte_alphabet())}
    core = tokenizers.Tokenizer(tokenizers.models.BPE({shown: byte_of[shown] for shown in alphabet}, []))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    core.add_special_tokens(["</s>", "<s>"])
    core.save(str(folder / "tokenizer.json"))
    return Tokenizer.open(folder)


def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte: itself where it can be seen, else the next free one from U+0100."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(value) if value in seen else chr(next(hidden)) for value in range(256)]


@dataclass
class MemoryModel:
    """Logits are a hash of every token that lies in the slot up to the position: a wrong slot, order or position changes them."""

    memory: dict[tuple[int, int], int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    broken_token: int | None = None  # a step that holds this token raises

    def __call__(self, step: Step) -> Tensor:
        self.steps.append(step)
        if self.broken_token is not None and self.broken_token in step.tokens.tolist():
            raise RuntimeError("the GPU caught fire")
        for token, position, slot in zip(step.tokens.tolist(), step.positions.tolist(), step.slots.tolist(), strict=True):
            self.memory[slot, position] = token
        rows = [self.row(int(step.slots[i]), int(step.positions[i])) for i in step.wanted.tolist()]
        return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, VOCAB))

    @property
    def bytes_per_token(self) -> int:
        return 8

    def copy(self, source: int, slot: int, count: int) -> None:
        self.memory |= {(slot, place): self.memory[source, place] for place in range(count)}

    def save(self, slot: int, count: int) -> Tensor:
        return torch.tensor([self.memory[slot, place] for place in range(count)])

    def restore(self, saved: Tensor, slot: int, count: int) -> None:
        self.memory |= {(slot, place): int(saved[place]) for place in range(count)}

    def row(self, slot: int, position: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return logits_after([self.memory[slot, place] for place in range(position + 1)])


def logits_after(tokens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """float32 [V]: what the model says after these tokens; letters are likely, the end of the text is not."""
    seed = int.from_bytes(hashlib.sha256(repr(tokens).encode()).digest()[:8], "little")
    logits = np.random.default_rng(seed).normal(size=VOCAB).astype(np.float32)
    logits[LETTERS] += 6
    logits[EOS:] -= 20
    return logits


def greedy(prompt: list[int], count: int) -> list[int]:
    """What the model writes alone, without any engine."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_after(tokens).argmax()))
    return tokens[len(prompt) :]


class GatedModel(MemoryModel):
    """Every step waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def __call__(self, step: Step) -> Tensor:
        self.entered.release()
        self.gate.acquire()
        return super().__call__(step)


def build_engine(forward: Forward, *, slots: int = 2, chunk: int = 8, context: int = 64, keep_bytes: int = 1000) -> Engine:
    cache = forward if isinstance(forward, MemoryModel) else None
    return Engine(forward, Scheduler(Slots(slots, cache, keep_bytes), Pace(chunk)), context)


def build_sequence(
    tokenizer: Tokenizer, prompt: list[int], params: Params, *, stops: tuple[str, ...] = (), seed: int | None = None, group: str = ""
) -> tuple[Sequence, list[Event]]:
    """A sequence, and the list that its events will be put in."""
    events: list[Event] = []
    stream = TextStream(IncrementalDecoder(tokenizer), stops)
    return Sequence(tuple(prompt), params, stream, generator(seed, 0), group=group, emit=events.append), events


def fake_service(tokenizer: Tokenizer, bridge: Bridge, context: int) -> Service:
    eos = frozenset({EOS})
    return Service("fake", 1_700_000_000, tokenizer, bridge, context, VOCAB, eos, 42.0, Watch(LAYOUT), Grammars(tokenizer, VOCAB, eos))


@contextmanager
def running_service(
    tokenizer: Tokenizer, forward: Forward, *, slots: int = 2, queue_size: int = 4, context: int = 64, chunk: int = 8
) -> Iterator[Service]:
    engine = build_engine(forward, slots=slots, chunk=chunk, context=context)
    bridge = Bridge(engine, slots=slots, queue_size=queue_size, prepare=list)
    bridge.start()
    try:
        yield fake_service(tokenizer, bridge, context)
    finally:
        assert bridge.stop(10)
