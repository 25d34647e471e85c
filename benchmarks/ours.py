"""Us as a contender: one packed model in memory, computed in several ways over the same weights, every neuron cold.

Modes: "dense" is the model with SiLU, so that every neuron is computed, by the same kernels; "exact" is the model's own rule,
gate first; "predictor" asks a planted predictor before any row is read. Knows no peer and no probe.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import cpu_ops
from benchmarks.activity import EVERYTHING, Activity, Counting, decode_bytes
from benchmarks.contest import Run, Task
from benchmarks.planted import build_predictor
from cpu_ops.ffn import predicted_ffn
from cpu_ops.topology import set_threads
from gpu_ops.transfer import Staging
from models.arena import Arena, allocate, neurons_room, spine_room
from models.bank import NeuronBank
from models.ffn import Done
from models.kv_cache import KvCache
from models.manifest import Manifest
from models.ops import Ffn
from models.packed import PackedModel
from models.predictor import Predictor
from models.rows import Rows
from models.spec import FfnRule, ModelSpec
from models.step import Step
from models.transformer import Transformer
from server.split_ffn import SplitBank, SplitFfn

LONGEST_PROMPT = 512
COUNTED_TOKENS = 32
WARM_UP_TOKENS = 17  # more than the kernels for few tokens take, so that both ways of computing are warm


@dataclass(frozen=True, slots=True)
class PredictedFfn:
    """Predictors [L] before banks [L]."""

    rule: FfnRule
    banks: Sequence[NeuronBank]
    predictors: Sequence[Predictor]

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Done:
        bank = self.banks[layer]
        return Done(predicted_ffn(bank, cpu_ops.input(bank.up.format, x), self.rule, self.predictors[layer], x))


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
        model = self.ways[task.mode]
        cache = KvCache(model.spec, slots=task.sequences, context=max(task.prompt + task.tokens + 1, WARM_UP_TOKENS))
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


def load(model: PackedModel, threads: int, order: Tensor | None = None, predictor_seed: int | None = None) -> Ours:
    """Reads the model, its neurons in `order` [E, N] as the server reads them after profiling, and counts what fires.

    predictor_seed: of the synthetic model, to add the mode "predictor".
    """
    set_threads(threads)
    warm_up(model.manifest)
    spec = model.manifest.spec
    arena = Arena(neurons_room(model.manifest, [0] * spec.n_banks) + spine_room(model.manifest))
    banks = load_banks(model, order, arena)
    spine = model.load_spine(allocate=arena.take)
    predictors = [] if predictor_seed is None else build_predictors(model.manifest, predictor_seed, order)
    ways = {mode: Transformer(spec, spine, ffn, cpu_ops) for mode, ffn in build_ffns(spec, banks, predictors).items()}
    counted = {mode: count(way, banks, predictors if mode == "predictor" else []) for mode, way in ways.items() if mode != "dense"}
    return Ours(ways, Facts(model.manifest, {"dense": EVERYTHING, **counted}, sum(each.nbytes for each in predictors)))


def warm_up(manifest: Manifest) -> None:
    """Compiles every kernel, or loads it from the cache."""
    cpu_ops.warm_up((manifest.formats.neurons, manifest.formats.spine, manifest.formats.embedding))


def load_banks(model: PackedModel, order: Tensor | None, arena: Arena) -> list[NeuronBank]:
    """[L], every neuron cold."""
    pairs = (model.load_banks(layer, order, [0], allocate=arena.take) for layer in range(model.manifest.spec.n_layers))
    return [cold for [(_, cold)] in pairs]


def build_ffns(spec: ModelSpec, banks: Sequence[NeuronBank], predictors: Sequence[Predictor]) -> dict[str, Ffn]:
    """By mode. The predictor's only when there are some."""
    split = [[SplitBank(bank[:0], bank)] for bank in banks]
    exact = SplitFfn(spec.rule, split, Staging(torch.device("cpu"), tokens=LONGEST_PROMPT, hidden=spec.hidden))
    ffns: dict[str, Ffn] = {"dense": replace(exact, rule=FfnRule(spec.rule.kind, "silu")), "exact": exact}
    return ffns | ({"predictor": PredictedFfn(spec.rule, banks, predictors)} if predictors else {})


def build_predictors(manifest: Manifest, seed: int, order: Tensor | None) -> list[Predictor]:
    """[L]: the same for every layer, as the layers are, each in memory of its own."""
    one = build_predictor(manifest.spec, seed, manifest.formats.neurons)
    one = one if order is None else one[order[0]]
    return [Predictor(copied(one.inward), copied(one.outward), one.threshold, one.reads) for _ in range(manifest.spec.n_layers)]


def copied(rows: Rows) -> Rows:
    """The same in memory such as weights have."""
    records = rows.records()
    return Rows.view(rows.format.name, rows.k, allocate(records.nbytes).view(records.shape).copy_(records))


def count(way: Transformer, banks: Sequence[NeuronBank], predictors: Sequence[Predictor]) -> Activity:
    """Over a prompt long enough to see a share of neurons, at the first, a middle and the last layer."""
    watched = sorted({0, len(banks) // 2, len(banks) - 1})
    asked = {layer: predictors[layer] for layer in watched if predictors}
    counting = Counting(way.ffn, way.spec.rule, {layer: banks[layer] for layer in watched}, asked)
    cache = KvCache(way.spec, slots=1, context=COUNTED_TOKENS)
    model = Transformer(way.spec, way.spine, counting, cpu_ops)
    step(model, cache, random_prompt(way, COUNTED_TOKENS, 1), range(COUNTED_TOKENS), [0] * COUNTED_TOKENS)
    return counting.activity
