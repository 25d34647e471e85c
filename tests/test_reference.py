"""The reference is itself held to transformers wherever transformers knows the model, and to numbers on paper elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.checkpoints import LLAMA_VARIANTS, make_by_hand, make_llama, make_mistral, use_old_rope_style
from tests.reference import Array, Int8Groups, Model, activation, ffn, reference_logits

TOKENS = torch.randint(0, 290, (40,), generator=torch.Generator().manual_seed(1)).tolist()


def transformers_logits(folder: Path) -> Array:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        logits: Array = model(torch.tensor([TOKENS])).logits[0].double().numpy()
    return logits


@pytest.mark.parametrize("name", LLAMA_VARIANTS)
def test_agrees_with_transformers(name: str, tmp_path: Path) -> None:
    folder = make_llama(tmp_path, LLAMA_VARIANTS[name])
    np.testing.assert_allclose(reference_logits(folder, TOKENS), transformers_logits(folder), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["theta", "linear", "llama3", "yarn"])
def test_old_and_new_rope_styles_mean_the_same(name: str, tmp_path: Path) -> None:
    folder = make_llama(tmp_path, LLAMA_VARIANTS[name])
    new = reference_logits(folder, TOKENS)
    use_old_rope_style(folder)
    np.testing.assert_array_equal(reference_logits(folder, TOKENS), new)


def test_rope_scalings_change_something(tmp_path: Path) -> None:
    logits = [reference_logits(make_llama(tmp_path / name, LLAMA_VARIANTS[name]), TOKENS) for name in ("relu", "linear", "llama3", "yarn")]
    for i, one in enumerate(logits):
        assert all(np.abs(one - other).max() > 1e-2 for other in logits[:i])


def test_sliding_window_agrees_with_mistral(tmp_path: Path) -> None:
    folder = make_mistral(tmp_path, {"sliding_window": 8})
    np.testing.assert_allclose(reference_logits(folder, TOKENS), transformers_logits(folder), rtol=1e-5, atol=1e-5)


def test_shards_are_read_like_one_file(tmp_path: Path) -> None:
    one, many = make_llama(tmp_path / "one"), make_llama(tmp_path / "many", shard_bytes=50_000)
    assert len(list(many.glob("*.safetensors"))) > 3
    np.testing.assert_array_equal(reference_logits(one, TOKENS), reference_logits(many, TOKENS))


def test_fatrelu_keeps_its_threshold_and_what_is_above() -> None:
    act = activation({"hidden_act": "fatrelu", "hidden_act_param": 0.25})
    np.testing.assert_array_equal(act(np.array([-1.0, 0.0, 0.2499, 0.25, 3.0])), [0.0, 0.0, 0.0, 0.25, 3.0])


def test_fatrelu_at_zero_is_relu(tmp_path: Path) -> None:
    relu = make_by_hand(tmp_path / "relu", {"model_type": "llama"})
    fat = make_by_hand(tmp_path / "fat", {"model_type": "sparsellama", "hidden_act": "fatrelu", "hidden_act_param": 0.0})
    np.testing.assert_array_equal(reference_logits(relu, TOKENS), reference_logits(fat, TOKENS))


def test_bamboo_needs_both_gate_and_up() -> None:
    weights = {f"{name}.weight": sign * np.eye(3) for name, sign in (("gate_proj", 1.0), ("up_proj", 1.0), ("down_proj", 2.0))}
    weights["up_proj.weight"] = np.diag([1.0, -1.0, 1.0])
    x = np.array([[3.0, 3.0, -3.0]])
    both, one = (Model({"model_type": family, "hidden_act": "relu"}, weights, lambda x: x) for family in ("bamboo", "llama"))
    np.testing.assert_array_equal(ffn(both, "", x), [[18.0, 0.0, 0.0]])
    np.testing.assert_array_equal(ffn(one, "", x), [[18.0, -18.0, 0.0]])


def test_int8_groups_round_to_what_the_largest_makes_a_step() -> None:
    rounding = Int8Groups()
    x = np.concatenate((np.array([127.0, 1.4, -1.6, 0.25]), np.zeros(28), np.full(32, -2.0)))[None]
    np.testing.assert_allclose(rounding(x)[0, :4], [127.0, 1.0, -2.0, 0.0], rtol=1e-15)
    np.testing.assert_allclose(rounding(x)[0, 32:], -2.0, rtol=1e-15)
    assert 0.09 < rounding.closest < 0.11
