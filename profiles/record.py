"""Recording: a text through a model, a layer at a time, counting which neurons fire.

The hidden states of a block of text are kept while the layers pass over them one by one; so a model may be larger than memory,
and after every block there is a whole profile of the text so far, which is what an interrupted recording goes on from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import gpu_ops  # in plain torch, so right for the CPU too
from models.bank import NeuronBank
from models.errors import BadArtefact
from models.kv_cache import KvCache
from models.layers import Rotary, segments_of
from models.packed import PackedModel
from models.spec import ModelSpec
from models.spine import LayerSpine
from models.step import Step
from models.transformer import enter, run_layer
from profiles.corpus import Chunk, Text
from profiles.firing import FiringProfile, load_profile, save_profile
from profiles.memory import available_bytes
from profiles.pace import Pace
from profiles.recording import RecordingFfn, Tally, nothing_yet

Layer = tuple[LayerSpine, Sequence[NeuronBank]]


def record(
    packed: PackedModel,
    text: Text,
    *,
    state: Path | None = None,
    max_seconds: float | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
) -> FiringProfile:
    """Counts firings over `text`, or over its beginning when `max_seconds` is short: `tokens` of the result says how far it came.

    After each block what was counted is saved to `state`, and a later call with the same text goes on from there; the caller
    removes that file. Ctrl-C raises KeyboardInterrupt with a line for the user.
    """
    profile = resume(state, packed, text)
    chunks = remaining(text.chunks, profile.tokens)
    model, pace = LayerwiseModel(packed, torch.device(device)), Pace(max_seconds)
    try:
        with tqdm(total=text.tokens, initial=profile.tokens, desc="profiling", unit=" tokens", unit_scale=True, disable=quiet) as bar:
            while chunks and (granted := pace.grant()):
                block, chunks = take(chunks, granted)
                profile = model.count(block, profile, bar.update)
                if state is not None:
                    save_profile(profile, state)
    except KeyboardInterrupt:
        kept = f"{profile.tokens} of {text.tokens} tokens are kept; the same command goes on from there" if state else "nothing is kept"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None
    return profile


def resume(state: Path | None, packed: PackedModel, text: Text) -> FiringProfile:
    """What `state` holds of this model and this text, or a profile of no tokens; BadArtefact when it is of another text."""
    if state is None or not state.is_file():
        return nothing_yet(packed.manifest.spec, packed.manifest.fingerprint, text.description)
    found = load_profile(state, packed.manifest.fingerprint)
    if found.corpus != text.description:
        remedy = f"give the same --corpus and --tokens to go on, or remove {state} to begin anew"
        raise BadArtefact(state, f"is an interrupted recording of another text ({found.corpus})", remedy)
    return found


def remaining(chunks: Sequence[Chunk], done_tokens: int) -> Sequence[Chunk]:
    """The chunks after the first `done_tokens` tokens."""
    return take(chunks, done_tokens)[1] if done_tokens else chunks


def take(chunks: Sequence[Chunk], tokens: int) -> tuple[Sequence[Chunk], Sequence[Chunk]]:
    """The fewest chunks that hold `tokens` tokens, and the rest."""
    count, held = 0, 0
    while count < len(chunks) and held < tokens:
        held += len(chunks[count].tokens)
        count += 1
    return chunks[:count], chunks[count:]


def share(tokens: int, index: int, n_layers: int) -> int:
    """Of `tokens`, the whole tokens that layer `index` stands for in a progress bar; over all layers they add up."""
    return tokens * (index + 1) // n_layers - tokens * index // n_layers


@dataclass(slots=True)
class State:
    """One chunk on its way through the layers: x [T, H]."""

    x: Tensor
    step: Step
    in_first_half: bool


class LayerwiseModel:
    """A packed model of which one layer is in memory at a time; all of them, when they take less than half of what is free."""

    def __init__(self, packed: PackedModel, device: torch.device) -> None:
        self.packed, self.device, self.spec = packed, device, packed.manifest.spec
        self.keeps = packed.manifest.neurons_bytes + packed.manifest.spine_bytes < available_bytes(device) // 2
        self.kept: dict[int, Layer] = {}
        self.entrance = packed.load_entrance(device)
        self.rotary = Rotary(self.spec, device)

    def layers(self) -> Iterator[tuple[int, Layer]]:
        for index in range(self.spec.n_layers):
            layer = self.kept.get(index) or self.load(index)
            if self.keeps:
                self.kept[index] = layer
            yield index, layer

    def load(self, index: int) -> Layer:
        pairs = self.packed.load_banks(index)
        return self.packed.load_layer_spine(index, self.device), [cold.to(self.device) for _, cold in pairs]

    @torch.inference_mode()
    def count(self, block: Sequence[Chunk], profile: FiringProfile, progress: Callable[[int], object]) -> FiringProfile:
        """`profile` and the firings of `block` together."""
        tally, states = Tally(profile), [self.begin(chunk) for chunk in block]
        cache = shared_cache(self.spec, max(len(state.step) for state in states), self.device)
        for index, (spine, banks) in self.layers():
            ffn = RecordingFfn(self.spec.rule, {index: banks}, tally)
            for state in states:
                ffn.in_first_half = state.in_first_half
                self.advance(state, index, spine, ffn, cache)
                progress(share(len(state.step), index, self.spec.n_layers))
        tokens = profile.tokens + sum(len(state.step) for state in states)
        return replace(
            profile, fired=tally.fired, gate_passed=tally.gate_passed, routed=tally.routed, first_half=tally.first_half, tokens=tokens
        )

    def begin(self, chunk: Chunk) -> State:
        tokens = torch.tensor(chunk.tokens, dtype=torch.int64)
        nothing = torch.zeros(0, dtype=torch.int64)
        step = Step(tokens, torch.arange(len(tokens)), torch.zeros_like(tokens), nothing)
        x = enter(self.spec, self.entrance, gpu_ops, tokens.to(self.device), step.positions.to(self.device))
        return State(x, step, chunk.in_first_half)

    def advance(self, state: State, index: int, spine: LayerSpine, ffn: RecordingFfn, cache: KvCache) -> None:
        rotation = self.rotary.at(state.step.positions.to(self.device))
        state.x = run_layer(self.spec, index, spine, ffn, gpu_ops, state.x, rotation, segments_of(state.step), cache)


def shared_cache(spec: ModelSpec, context: int, device: torch.device) -> KvCache:
    """A cache for one sequence in which every layer has the same memory: each is done with it before the next begins."""
    of_one = replace(spec, n_layers=1, turned=(), windowed=(), predictors=None)
    cache = KvCache(of_one, slots=1, context=context, device=device)
    cache.spec, cache.keys, cache.values = spec, list(cache.keys) * spec.n_layers, list(cache.values) * spec.n_layers
    return cache
