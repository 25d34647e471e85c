"""llama.cpp as a contender, through llama-cpp-python's plain C functions. Optional; knows nothing of us.

Its own defaults everywhere (weights repacked for the CPU, flash attention and key-value formats of its choosing), except the
number of threads, which is the contest's.
"""

import ctypes
import importlib
import importlib.util
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Run, Task
from models.errors import Unavailable

PACKAGES = ("llama_cpp", "gguf")
WARM_UP_TOKENS = 16


def peer_missing() -> list[str]:
    """Packages that the peer needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


class LlamaCpp:
    """A model in memory. Each measurement has a context of its own and computes a little before it is timed."""

    def __init__(self, path: Path, threads: int) -> None:
        self.library: Any = importlib.import_module("llama_cpp")
        self.threads = threads
        silence(self.library)
        self.library.llama_backend_init()
        self.model = self.library.llama_model_load_from_file(str(path).encode(), self.library.llama_model_default_params())
        if not self.model:
            raise Unavailable("llama.cpp", f"cannot load {path}")
        self.vocab = self.library.llama_vocab_n_tokens(self.library.llama_model_get_vocab(self.model))

    def run(self, task: Task) -> Run:
        """Any mode: it knows one way."""
        n = task.sequences
        with Context(self, max(task.prompt + task.tokens, WARM_UP_TOKENS), n) as context:
            context.step(random_tokens(WARM_UP_TOKENS, self.vocab, 0), [0] * WARM_UP_TOKENS, range(WARM_UP_TOKENS))
            context.forget()
            chosen, prompt_seconds = [], 0.0
            for slot in range(n):
                tokens = random_tokens(task.prompt, self.vocab, slot)
                started = time.perf_counter()
                chosen += context.step(tokens, [slot] * task.prompt, range(task.prompt))
                prompt_seconds = time.perf_counter() - started
            return Run(prompt_seconds, decode(context, chosen, task))


class Context:
    """Keys, values and buffers for `sequences` sequences of at most `length` tokens."""

    def __init__(self, engine: LlamaCpp, length: int, sequences: int) -> None:
        self.library, self.vocab = engine.library, engine.vocab
        params = self.library.llama_context_default_params()
        params.n_ctx, params.n_seq_max = length * sequences, sequences
        params.n_batch = params.n_ubatch = max(length, sequences)
        params.n_threads = params.n_threads_batch = engine.threads
        self.pointer = self.library.llama_init_from_model(engine.model, params)
        if not self.pointer:
            raise Unavailable("llama.cpp", f"refuses a context of {params.n_ctx} tokens")
        self.batch = self.library.llama_batch_init(params.n_batch, 0, 1)

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_: object) -> None:
        self.library.llama_batch_free(self.batch)
        self.library.llama_free(self.pointer)

    def step(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> list[int]:
        """The likeliest token after the last one of each slot."""
        batch, n = self.batch, len(tokens)
        last = {slot: i for i, slot in enumerate(slots)}
        batch.n_tokens = n
        for i, (token, slot, position) in enumerate(zip(tokens, slots, positions, strict=True)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = slot, last[slot] == i
        if code := self.library.llama_decode(self.pointer, batch):
            raise Unavailable("llama.cpp", f"llama_decode returned {code}")
        return [self.likeliest(i) for i in last.values()]

    def forget(self) -> None:
        self.library.llama_memory_clear(self.library.llama_get_memory(self.pointer), True)

    def likeliest(self, i: int) -> int:
        logits = self.library.llama_get_logits_ith(self.pointer, i)
        return int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())


def decode(context: Context, tokens: Sequence[int], task: Task) -> tuple[float, ...]:
    """Seconds of each step after the prompts; `tokens` are what the prompts ended with."""
    seconds = []
    for i in range(task.tokens):
        started = time.perf_counter()
        tokens = context.step(tokens, range(task.sequences), [task.prompt + i] * task.sequences)
        seconds.append(time.perf_counter() - started)
    return tuple(seconds)


def random_tokens(n: int, vocab: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(vocab), k=n)


def _say_nothing(_level: int, _text: bytes, _data: int) -> None:
    return None


SAY_NOTHING = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_say_nothing)


def silence(library: Any) -> None:
    library.llama_log_set(SAY_NOTHING, None)
