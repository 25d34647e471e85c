"""The planned workspace beside the memory that a real step was seen to take, on the hot side's code."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import gpu_ops
from models.bank import NeuronBank
from models.ffn import Done
from models.kv_cache import KvCache
from models.pack import packed
from models.spec import FfnRule
from models.step import Step
from models.transformer import Transformer
from placement.budget import GPU_TILE, PROMPT_CHUNK, workspace_bytes
from tests.checkpoints import make_llama

SHAPES = {
    "long_context": {"max_position_embeddings": 1024},
    "many_neurons": {"intermediate_size": 4096},
    "many_tokens": {"vocab_size": 8000},
    "wide": {"hidden_size": 512, "num_key_value_heads": 4},
}


@dataclass(frozen=True, slots=True)
class HotFfn:
    """Every neuron hot."""

    rule: FfnRule
    banks: Sequence[NeuronBank]

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Done:
        bank = self.banks[layer]
        return Done(gpu_ops.ffn(bank, bank.up.format.input(x), self.rule))


def peak_bytes(transformer: Transformer, step: Step, cache: KvCache) -> int:
    """The most memory allocated at one time during a forward pass, above what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        transformer.forward(step, cache)
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert changes
    level = top = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        level += change.nbytes()
        top = max(top, level)
    return top


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_chunk_of_a_prompt_stays_within_the_workspace(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    model = packed(str(make_llama(tmp_path / "model", {"max_position_embeddings": 512} | SHAPES[shape])), "int4", quiet=True)
    spec = model.manifest.spec
    banks = [model.load_banks(layer)[0][1] for layer in range(spec.n_layers)]
    transformer = Transformer(spec, model.load_spine(), HotFfn(spec.rule, banks), gpu_ops)
    tokens = torch.zeros(PROMPT_CHUNK, dtype=torch.int64)
    step = Step(tokens, torch.arange(spec.context - PROMPT_CHUNK, spec.context), tokens, torch.arange(PROMPT_CHUNK))
    taken = peak_bytes(transformer, step, KvCache(spec, slots=1, context=spec.context))
    assert 0.2 * workspace_bytes(spec, spec.context, 1, GPU_TILE) < taken <= workspace_bytes(spec, spec.context, 1, GPU_TILE)
