"""Selection by a predictor folder, from the files to the text: with one that names what fires, the text is the exact one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cpu_ops
from gpu_ops.transfer import Staging
from models.errors import BadCheckpoint, BadValue
from models.kv_cache import KvCache
from models.pack import packed
from models.packed import PackedModel
from models.predictor import ABOVE_ZERO, Predictor, State
from models.predictor_folder import open_predictor_folder
from models.predictors import available, pack_predictors
from models.step import Step
from models.transformer import Transformer
from server.config import Config
from server.load import load
from server.split_ffn import SplitBank, SplitFfn
from tests.families import make_variant
from tests.models.test_predictors import write_folder
from tests.server.test_load import config, written

__all__ = ["config"]  # a fixture
NAMES = {"relu": ("post_attention_layernorm", "mlp.gate_proj"), "falcon_7b": ("input_layernorm", "mlp.dense_h_to_4h")}


def oracle(checkpoint: Path, layer: int) -> tuple[Tensor, Tensor]:
    """A predictor whose score has the sign of what decides, computed from the state before the norm: norms only scale, and centre.

    decider · (w ⊙ (x - mean)) = decider' · x, and outward · relu((I, -I) · x) = outward · x for outward = (decider', -decider').
    """
    tensors = load_file(checkpoint / "model.safetensors")
    norm, decider = (next(tensors[name] for name in tensors if f".{layer}.{part}.weight" in name) for part in NAMES[checkpoint.name])
    scaled = decider * norm
    if checkpoint.name == "falcon_7b":
        scaled = scaled - scaled.mean(dim=1, keepdim=True)
    eye = torch.eye(decider.shape[1])
    return torch.cat((eye, -eye)), torch.cat((scaled, -scaled), dim=1)


def without_norm_biases(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    tensors = {name: torch.zeros_like(t) if "layernorm.bias" in name else t for name, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def make(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    checkpoint = make_variant(tmp_path / name, name)
    without_norm_biases(checkpoint)
    return checkpoint


def logits(model: PackedModel, predictors: list[Predictor] | None) -> Tensor:
    """Of eight tokens, all neurons cold."""
    spec = model.manifest.spec
    banks = [model.load_banks(layer)[0] for layer in range(spec.n_layers)]
    parted = [[SplitBank(hot, cold, predictors[layer] if predictors else None)] for layer, (hot, cold) in enumerate(banks)]
    ffn = SplitFfn(spec.rule, parted, Staging(torch.device("cpu"), tokens=16, hidden=spec.hidden))
    tokens = torch.arange(8)
    step = Step(tokens, tokens, torch.zeros(8, dtype=torch.int64), tokens)
    return Transformer(spec, model.load_spine(), ffn, cpu_ops).forward(step, KvCache(spec, slots=1, context=16))


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_the_residual_before_the_norm_which_in_a_parallel_layer_is_the_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    checkpoint = make(tmp_path, name)
    model = packed(str(checkpoint), "float32", quiet=True)
    folder = write_folder(tmp_path / "predictors", [oracle(checkpoint, layer) for layer in range(2)], ABOVE_ZERO)
    load_folder(model, folder)
    found = available(model)
    assert found is not None
    predictors = [found.load(layer)[0] for layer in range(2)]
    exact = logits(model, None)
    torch.testing.assert_close(logits(model, predictors), exact, rtol=1e-4, atol=1e-4)
    other: State = "normed"
    wrong = [replace(predictor, reads=other) for predictor in predictors]
    assert (logits(model, wrong) - exact).abs().max() > 0.01
    none = [replace(predictor, threshold=1e9) for predictor in predictors]
    assert (logits(model, none) - exact).abs().max() > 0.1


def load_folder(model: PackedModel, folder: Path) -> None:
    pack_predictors(model, open_predictor_folder(folder, model.manifest.spec), quiet=True)


def test_the_server_writes_the_exact_text_by_it_and_finds_it_again(config: Config, tmp_path: Path) -> None:
    checkpoint = make(tmp_path, "relu")
    exact = load(replace(config, model=str(checkpoint)))
    text = written(exact, exact.tokenizer)
    folder = write_folder(tmp_path / "predictors", [oracle(checkpoint, layer) for layer in range(2)], ABOVE_ZERO)
    chosen = replace(config, model=str(checkpoint), selection="predictor")
    first = load(replace(chosen, predictors=folder))
    assert written(first, first.tokenizer) == text
    assert first.plan.question.predictor_bytes > 2 * 4 * (128 * 64 + 96 * 128) - 1
    (line,) = [line for line in first.plan.ram.lines if line.name == "predictors"]
    assert line.bytes == first.plan.question.predictor_bytes
    held_bytes = first.held.predictor_bytes
    assert exact.held.predictor_bytes == 0 < held_bytes <= line.bytes < held_bytes + 2**14  # the file aligns each of its four matrices
    again = load(chosen)
    assert written(again, again.tokenizer) == text
    silent = write_folder(tmp_path / "silent", [oracle(checkpoint, layer) for layer in range(2)], 1e5)
    nothing = load(replace(chosen, predictors=silent))
    assert written(nothing, nothing.tokenizer) != text


def test_predictors_of_a_checkpoint_can_be_chosen_and_a_mask_cannot(config: Config, tmp_path: Path) -> None:
    (tmp_path / "turbo").mkdir()
    mistral = str(make_variant(tmp_path / "turbo" / "mistral", "turbosparse_mistral"))
    ready = load(replace(config, model=mistral, selection="predictor"))
    assert [len(one) for one in written(ready, ready.tokenizer)] == [8, 8, 8]
    assert ready.plan.question.predictor_bytes == ready.manifest.sizes.predictors > 0
    assert any("predictors name" in line for line in ready.plan.assumptions)
    exact = load(replace(config, model=mistral))
    assert not any("predictors name" in line for line in exact.plan.assumptions)
    mixtral = str(make_variant(tmp_path / "turbo" / "mixtral", "turbosparse_mixtral"))
    with pytest.raises(BadValue, match="predictors of mixtral are part of the model, and always used"):
        load(replace(config, model=mixtral, selection="predictor"))


def test_a_choice_that_cannot_be_met_is_one_line(config: Config, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="cannot be chosen: predictors of tiny are not there; name a folder"):
        load(replace(config, selection="predictor"))
    with pytest.raises(BadCheckpoint, match="not a folder of predictors"):
        load(replace(config, selection="predictor", predictors=tmp_path))
    with pytest.raises(BadValue, match="is used by --selection predictor only"):
        replace(config, predictors=tmp_path)
