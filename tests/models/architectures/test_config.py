"""A config.json is read strictly: every family's real file is taken, and what nobody tested is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.architectures import manifest_from_config, read_spec
from models.bits import FORMAT_NAMES, FormatName
from models.errors import BadCheckpoint, BadConfig, BadValue
from models.manifest import Formats, computed_sizes
from models.spec import FfnRule
from tests.checkpoints import LLAMA3_ROPE, LLAMA_VARIANTS, SHAPE, YARN_ROPE, edit_config, use_old_rope_style
from tests.conftest import CheckpointOf

# What the published checkpoints carry.
TINY_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 5632,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.35.0",
    "use_cache": True,
    "vocab_size": 32000,
}
BAMBOO: dict[str, Any] = {
    "architectures": ["BambooForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "relu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "bamboo",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.2",
    "use_cache": True,
    "vocab_size": 32000,
}


def write(folder: Path, config: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_tiny_llama_has_its_parameters(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, TINY_LLAMA))
    assert spec.parameters == 1_100_048_384
    assert spec.rule == FfnRule("gated", "silu")
    assert (spec.head_dim, spec.kv_width, spec.bos, spec.eos) == (64, 256, 1, (2,))


def test_bamboo_rectifies_gate_and_up_and_looks_back_4096_tokens(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, BAMBOO))
    assert spec.rule == FfnRule("gated_both", "relu")
    assert spec.sliding_window == 4096
    assert round(spec.parameters / 1e9, 1) == 7.2


def test_sparsellama_has_a_threshold(tmp_path: Path) -> None:
    config = TINY_LLAMA | {"model_type": "sparsellama", "hidden_act": "fatrelu", "hidden_act_param": 0.01, "architectures": []}
    assert read_spec(write(tmp_path, config)).rule == FfnRule("gated", "fatrelu", 0.01)


@pytest.mark.parametrize("name", LLAMA_VARIANTS)
def test_old_and_new_files_say_the_same(name: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    config = json.loads((checkpoint_of(name) / "config.json").read_text())
    new = read_spec(write(tmp_path, config))
    use_old_rope_style(tmp_path)
    assert read_spec(tmp_path) == new


def test_the_oldest_files_call_the_kind_of_scaling_type(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, TINY_LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}))
    assert spec.rope is not None
    assert (spec.rope.scaling, spec.rope.factor) == ("linear", 2.0)


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "su", "ntk"])
@pytest.mark.parametrize("style", ["rope_scaling", "rope_parameters"])
def test_scalings_that_depend_on_length_are_refused_by_name(kind: str, style: str, tmp_path: Path) -> None:
    scaling = {"rope_type": kind, "factor": 2.0, "long_factor": [1.0], "short_factor": [1.0]}
    with pytest.raises(BadConfig, match=kind):
        read_spec(write(tmp_path, TINY_LLAMA | {style: scaling}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "mamba"),
        ("model_type", None),
        ("architectures", ["MambaForCausalLM"]),
        ("hidden_act", "gelu_new"),
        ("hidden_act", "fatrelu"),  # without its threshold
        ("pretraining_tp", 2),
        ("hidden_size", 0),
        ("hidden_size", -64),
        ("hidden_size", 2048.0),
        ("hidden_size", "2048"),
        ("hidden_size", True),
        ("hidden_size", 10**30),
        ("hidden_size", None),
        ("num_hidden_layers", []),
        ("num_key_value_heads", 5),
        ("head_dim", 63),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", "small"),
        ("rope_theta", -1.0),
        ("tie_word_embeddings", "yes"),
        ("bos_token_id", -1),
        ("eos_token_id", [2, "x"]),
        ("rope_scaling", "linear"),
        ("rope_scaling", {"rope_type": "linear"}),
        ("rope_scaling", YARN_ROPE | {"factor": 0}),
        ("rope_scaling", YARN_ROPE | {"surprise": 1}),
        ("rope_scaling", YARN_ROPE | {"rope_theta": 1.0}),
        ("rope_scaling", LLAMA3_ROPE | {"high_freq_factor": 1.0}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("quantization_config", {"bits": 4}),
        ("logit_scale", 2.0),
        ("sliding_window", 128),  # a LLaMA has none
    ],
)
def test_what_nobody_tested_is_refused_and_named(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        read_spec(write(tmp_path, TINY_LLAMA | {key: value}))
    inner = value.keys() if isinstance(value, dict) else ()
    assert caught.value.key in {key, *inner, "factor", "hidden_act_param"}
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"llama"', "[" * 100_000, '{"a": NaN'])
def test_what_is_not_a_json_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadConfig):
        read_spec(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(BadConfig):
        read_spec(tmp_path)


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="not a model directory"):
        read_spec(tmp_path)
    with pytest.raises(BadCheckpoint, match="no such directory"):
        read_spec(tmp_path / "nothing")


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_config_alone_is_enough_to_plan_and_the_plan_says_so(name: FormatName, tmp_path: Path) -> None:
    manifest = manifest_from_config(write(tmp_path, TINY_LLAMA), name)
    assert manifest.assumed
    assert manifest.sizes == computed_sizes(manifest.spec, Formats.of(name))
    assert manifest_from_config(tmp_path / "config.json", name) == manifest


def test_rows_that_groups_do_not_divide_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    write(tmp_path, SHAPE | {"model_type": "llama", "hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 5})
    with pytest.raises(BadValue, match="multiple of 32"):
        manifest_from_config(tmp_path, "int4")
    assert manifest_from_config(tmp_path, "bf16").sizes.up_row == 160


def test_the_fingerprint_follows_the_config(tmp_path: Path) -> None:
    before = manifest_from_config(write(tmp_path, TINY_LLAMA), "bf16").fingerprint
    edit_config(tmp_path, rope_theta=20000.0)
    assert manifest_from_config(tmp_path, "bf16").fingerprint != before
