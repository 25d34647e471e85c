"""Us as a contender: one packed model in memory, computed in several ways over the same weights, every neuron cold.

Modes: "dense" is the model with SiLU, so that every neuron is computed, by the same kernels; "exact" is the model's own rule,
gate first; "predictor" asks a planted predictor before any row is read. Knows no peer and no probe.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

import cpu_ops
from benchmarks.activity import EVERYTHING, Activity, Counting, decode_bytes
from benchmarks.contest import Run, Task
from benchmarks.planted import build_predictor
from cpu_ops.topology import set_threads
from gpu_ops.transfer import Staging
from models.arena import Arena, allocate, neurons_room, spine_room
from models.bank import NeuronBank
from models.kv_cache import KvCache
from models.manifest import Manifest
from models.packed import PackedModel
from models.predictor import Predictor
from models.rows import Rows
from models.spec import FfnRule
from models.spine import Spine
from models.step import Step
from models.transformer import Transformer
from server.split_ffn import SplitBank, SplitFfn

LONGEST_PROMPT = 512
COUNTED_TOKENS = 32
WARM_UP_TOKENS = 17  # more than the kernels for few tokens take, so that both ways of computing are warm


@dataclass(frozen=True, slots=True)
class Facts:
    """What a loaded model touches: `activity` by mode, and the bytes of all predictors."""

    manifest: Manifest
    activity: Mapping[str, Activity]
    predictor_bytes: int

    def token_bytes(self, task: Task) -> int:
        """Bytes a step of one sequence reads, in the middle of its run."""
        predictor_bytes = self.predictor_bytes if task.mode == "predictor" else 0
        return decode_bytes(self.manifest, self.activity[task.mode], task.prompt + task.tokens // 2, predictor_bytes)


@dataclass(frozen=True, slots=True)
class Ours:
    """`ways`: a transformer for each mode, over one spine and one arena of neurons."""

    ways: Mapping[str, Transformer]
    facts: Facts

    def run(self, task: Task) -> Run:
        return timed(self.ways[task.mode], task)


def timed(model: Transformer, task: Task) -> Run:
    """A short prompt and a token to wake up, then the task."""
    cache = KvCache(model.spec, slots=task.sequences, context=max(task.prompt + task.tokens, WARM_UP_TOKENS))
    for n in (WARM_UP_TOKENS, 1):
        step(model, cache, random_prompt(model, n, 0), range(n), [0] * n)
    chosen, prompt_seconds = [], 0.0
    for slot in range(task.sequences):
        tokens = random_prompt(model, task.prompt, slot)
        started = time.perf_counter()
        chosen.append(step(model, cache, tokens, range(task.prompt), [slot] * task.prompt))
        prompt_seconds = time.perf_counter() - started
    return Run(prompt_seconds, decode(model, cache, torch.cat(chosen), task))


def decode(model: Transformer, cache: KvCache, tokens: Tensor, task: Task) -> tuple[float, ...]:
    """Seconds of each step after the prompts; `tokens` [sequences] are what the prompts ended with."""
    seconds = []
    for i in range(task.tokens):
        started = time.perf_counter()
        tokens = step(model, cache, tokens, [task.prompt + i] * task.sequences, range(task.sequences))
        seconds.append(time.perf_counter() - started)
    return tuple(seconds)


def step(model: Transformer, cache: KvCache, tokens: Tensor, positions: Sequence[int], slots: Sequence[int]) -> Tensor:
    """int64: the likeliest token after the last one of each slot."""
    last = {slot: i for i, slot in enumerate(slots)}
    asked = Step(tokens, torch.tensor(positions), torch.tensor(slots), torch.tensor(list(last.values())))
    return model.forward(asked, cache).argmax(-1)


def random_prompt(model: Transformer, tokens: int, seed: int) -> Tensor:
    return torch.randint(0, model.spec.vocab, (tokens,), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model keeps in memory: `banks` and `predictors` [L], none where no predictor was asked for."""

    manifest: Manifest
    spine: Spine
    banks: Sequence[NeuronBank]
    predictors: Sequence[Predictor]

    def ways(self) -> dict[str, Transformer]:
        """By mode; "predictor" only when there are some."""
        spec = self.manifest.spec
        exact = SplitFfn(spec.rule, split(self.banks), Staging(torch.device("cpu"), tokens=LONGEST_PROMPT, hidden=spec.hidden))
        ffns: dict[str, SplitFfn] = {"dense": replace(exact, rule=FfnRule(spec.rule.kind, "silu")), "exact": exact}
        if self.predictors:
            ffns["predictor"] = replace(exact, banks=split(self.banks, self.predictors))
        repeats = {mode: cpu_ops.replayed if ffn.repeats else None for mode, ffn in ffns.items()}
        return {mode: Transformer(spec, self.spine, ffn, cpu_ops, repeat=repeats[mode]) for mode, ffn in ffns.items()}


def split(banks: Sequence[NeuronBank], predictors: Sequence[Predictor] = ()) -> list[list[SplitBank]]:
    """[L][1], every neuron cold."""
    return [[SplitBank(bank[:0], bank, predictor)] for bank, predictor in zip_longest(banks, predictors)]


def load(model: PackedModel, threads: int, order: Tensor | None = None, predictor_seed: int | None = None) -> Ours:
    """Reads the model, its neurons in `order` [E, N] as the server reads them after profiling, and counts what fires.

    predictor_seed: of the synthetic model, to add the mode "predictor".
    """
    set_threads(threads)
    warm_up(model.manifest)
    weights = load_weights(model, order, predictor_seed)
    ways = weights.ways()
    counted = {mode: count(weights, mode, way) for mode, way in ways.items() if mode != "dense"}
    predictor_bytes = sum(each.nbytes for each in weights.predictors)
    return Ours(ways, Facts(model.manifest, {"dense": EVERYTHING, **counted}, predictor_bytes))


def load_weights(model: PackedModel, order: Tensor | None, predictor_seed: int | None) -> Weights:
    """All in one arena, every neuron cold; predictors in memory of their own."""
    n_banks = model.manifest.spec.n_banks
    arena = Arena(neurons_room(model.manifest, [0] * n_banks) + spine_room(model.manifest))
    pairs = [model.load_banks(layer, order, [0], allocate=arena.take) for layer in range(n_banks)]
    predictors = [] if predictor_seed is None else build_predictors(model.manifest, predictor_seed, order)
    return Weights(model.manifest, model.load_spine(allocate=arena.take), [cold for [(_, cold)] in pairs], predictors)


def warm_up(manifest: Manifest) -> None:
    """Compiles every kernel, or loads it from the cache."""
    cpu_ops.warm_up((manifest.formats.neurons, manifest.formats.spine, manifest.formats.embedding))


def build_predictors(manifest: Manifest, seed: int, order: Tensor | None) -> list[Predictor]:
    """[L]: the same for every layer, as the layers are, each in memory of its own."""
    one = build_predictor(manifest.spec, seed, manifest.formats.neurons)
    one = one if order is None else one[order[0]]
    return [Predictor(copied(one.inward), copied(one.outward), one.threshold, one.reads) for _ in range(manifest.spec.n_layers)]


def copied(rows: Rows) -> Rows:
    """The same in memory such as weights have."""
    records = rows.records()
    return Rows.view(rows.format.name, rows.k, allocate(records.nbytes).view(records.shape).copy_(records))


def count(weights: Weights, mode: str, way: Transformer) -> Activity:
    """Over a prompt long enough to see a share of neurons, at the first, a middle and the last layer."""
    last = len(weights.banks) - 1
    watched = {layer: weights.banks[layer] for layer in (0, (last + 1) // 2, last)}
    asked = {layer: weights.predictors[layer] for layer in watched} if mode == "predictor" else {}
    counting = Counting(way.ffn, way.spec.rule, watched, asked)
    cache = KvCache(way.spec, slots=1, context=COUNTED_TOKENS)
    model = Transformer(way.spec, way.spine, counting, cpu_ops)
    step(model, cache, random_prompt(way, COUNTED_TOKENS, 1), range(COUNTED_TOKENS), [0] * COUNTED_TOKENS)
    return counting.activity
