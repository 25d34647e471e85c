"""Perplexity of a text, for every format and split that is asked for: what a choice costs in quality, beside what it gains in speed.

The text is cut into windows as long as a slot; in each, every token after the first is scored. Where the model wants a begin-of-text,
that is the first, so that every token of the text counts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.errors import BadArtefact
from models.tokenizer import Tokenizer
from models.units import format_rate
from server.config import Config
from server.load import Ready
from server.offline import build, finish, loaded, named
from server.sequence import Params
from server.table import table

HEAD = ("model", "format", "neurons", "perplexity", "±", "change", "bits a byte", "tokens/s")
LARGEST_BYTES = 1 << 30
MOST_WORDS = 1 << 24  # characters that are tokenised at once, at most


@dataclass(frozen=True, slots=True)
class Found:
    """`nats`: mean of -log p; `error`: its standard error, windows being the samples' order. `n_bytes` of the scored text."""

    nats: float
    error: float
    scored: int
    n_bytes: int
    seconds: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats)

    @property
    def bits_per_byte(self) -> float:
        return self.nats * self.scored / math.log(2) / self.n_bytes


def perplexity(configs: Sequence[Config], path: Path, most_tokens: int) -> Iterator[str]:
    """The table's lines, when all is measured. BadArtefact for a text that cannot be scored."""
    text, rows, first = read_text(path), list[tuple[str, ...]](), None
    for config in configs:
        with loaded(config) as ready:
            found = score(ready, text, path, most_tokens)
        first = first or found
        rows.append(cells(ready, found, first))
    yield from table(HEAD, rows)
    yield f"{0 if first is None else first.scored} tokens of {path}"


def read_text(path: Path) -> str:
    if path.stat().st_size > LARGEST_BYTES:
        raise BadArtefact(path, f"is larger than {LARGEST_BYTES} bytes", "give a part of it")
    try:
        return path.read_text(encoding="utf-8")[:MOST_WORDS]
    except UnicodeDecodeError as error:
        raise BadArtefact(path, f"is not UTF-8: {error.reason}", "give a text") from None


def score(ready: Ready, text: str, path: Path, most_tokens: int) -> Found:
    ids = ready.tokenizer.encode(text, special=False)[:most_tokens]
    parts = windows(ids, ready.tokenizer, ready.plan.question.context)
    sequences = [build(part, Params(max_tokens=0, logprobs=0, score_prompt=True)) for part in parts if len(part) > 1]
    if not sequences:
        raise BadArtefact(path, f"has {len(ids)} tokens", "give a longer text")
    for sequence in tqdm(sequences, "scoring", unit=" windows"):
        finish(ready.engine, [sequence])
    scored = [one for sequence in sequences for one in sequence.prompt_scores if one is not None]
    nats, n_bytes = np.array([-one.logprob for one in scored]), len(ready.tokenizer.decode([one.token for one in scored]).encode())
    seconds = sum(sequence.times.first - sequence.times.started for sequence in sequences)
    return Found(float(nats.mean()), float(nats.std() / math.sqrt(len(nats))), len(nats), max(n_bytes, 1), seconds)


def windows(ids: list[int], tokenizer: Tokenizer, context: int) -> list[list[int]]:
    head = [] if tokenizer.bos is None else [tokenizer.bos]
    size = context - len(head)
    return [head + ids[start : start + size] for start in range(0, len(ids), size)]


def cells(ready: Ready, found: Found, first: Found) -> tuple[str, ...]:
    """The error of a perplexity is itself times the error of its logarithm."""
    shown = (f"{found.perplexity:.4f}", f"{found.perplexity * found.error:.4f}", f"{found.perplexity / first.perplexity - 1:+.2%}")
    return (ready.manifest.name, *named(ready), *shown, f"{found.bits_per_byte:.4f}", format_rate(found.scored / found.seconds))
