"""Foreign tensor files: read lazily and exactly, and every way they can be wrong is one line and no crash."""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from models.checkpoint.base import Checkpoint
from models.checkpoint.safetensors import open_safetensors
from models.errors import BadCheckpoint, BadConfig, MissingTensor, ThermoclineError
from tests.checkpoints import edit_config, make_by_hand, make_llama
from tests.conftest import CheckpointOf

WEIGHTS = "model.safetensors"
LLAMA = {"model_type": "llama"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_by_hand(tmp_path / "model", LLAMA)


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the JSON header and leaves the tensors' bytes alone."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])


def test_every_tensor_reads_as_the_library_reads_it(checkpoint_of: CheckpointOf) -> None:
    checkpoint = open_safetensors(checkpoint_of("everything"))
    for name, tensor in load_file(checkpoint.folder / WEIGHTS).items():
        assert torch.equal(checkpoint.source.read(name), tensor)
    gate = load_file(checkpoint.folder / WEIGHTS)["model.layers.1.mlp.gate_proj.weight"]
    assert torch.equal(checkpoint.read("layers.1.experts.0.gate", 3, 9), gate[3:9])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = open_safetensors(make_by_hand(tmp_path, LLAMA, dtype=dtype))
    read = checkpoint.read("layers.0.q")
    assert read.dtype == torch.float32
    assert torch.equal(read, load_file(tmp_path / WEIGHTS)["model.layers.0.self_attn.q_proj.weight"].float())


def test_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    one = open_safetensors(make_llama(tmp_path / "one"))
    many = open_safetensors(make_llama(tmp_path / "many", shard_bytes=50_000))
    assert sorted(one.source.names()) == sorted(many.source.names())
    assert all(torch.equal(one.source.read(name), many.source.read(name)) for name in one.source.names())


def test_the_fingerprint_follows_config_and_weights(folder: Path, tmp_path: Path) -> None:
    before = open_safetensors(folder).fingerprint
    assert open_safetensors(make_by_hand(tmp_path / "same", LLAMA)).fingerprint == before
    assert open_safetensors(make_by_hand(tmp_path / "other", LLAMA, seed=1)).fingerprint != before
    edit_config(folder, rope_theta=20000.0)
    assert open_safetensors(folder).fingerprint != before


def test_old_leftovers_are_ignored(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, folder / WEIGHTS)
    assert open_safetensors(folder).spec.n_layers == 2


def test_a_tied_head_may_be_written_out(tmp_path: Path) -> None:
    folder = make_by_hand(tmp_path, LLAMA)
    edit_config(folder, tie_word_embeddings=True)
    assert open_safetensors(folder).spec.tied_head


def test_a_missing_tensor_is_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(MissingTensor, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        open_safetensors(folder)


def test_a_tensor_nobody_needs_is_named(folder: Path) -> None:
    """It may be a bias of a variant whose config we misread: silence would give wrong logits."""
    save_file(load_file(folder / WEIGHTS) | {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}, folder / WEIGHTS)
    with pytest.raises(BadCheckpoint, match=r"q_proj\.bias"):
        open_safetensors(folder)


def test_a_shape_that_is_not_the_configs_is_named(folder: Path) -> None:
    edit_config(folder, intermediate_size=128)
    with pytest.raises(BadCheckpoint, match=r"\[96, 64\], the config says \[128, 64\]"):
        open_safetensors(folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(BadCheckpoint, match=r"neither model\.safetensors nor"):
        open_safetensors(folder)


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no such directory"):
        open_safetensors(tmp_path / "nothing")
    with pytest.raises(BadCheckpoint, match="not a model directory"):
        open_safetensors(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_refused_before_any_tensor_is_read(kept: int, folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:kept])
    with pytest.raises(BadCheckpoint, match=r"truncated|shorter"):
        open_safetensors(folder)


def test_a_file_cut_after_it_was_opened_is_an_error_and_no_crash(folder: Path) -> None:
    checkpoint = open_safetensors(folder)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5000])
    with pytest.raises(BadCheckpoint, match="truncated"):
        read_everything(checkpoint)


def read_everything(checkpoint: Checkpoint) -> None:
    for name in checkpoint.source.names():
        checkpoint.source.read(name)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [290, 64], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 74240]},
        {"dtype": "F32", "shape": [290, 64], "data_offsets": [-74240, 0]},
        {"dtype": "F32", "shape": [-290, -64], "data_offsets": [0, 74240]},
        {"dtype": "F32", "shape": [290.0, 64], "data_offsets": [0, 74240]},
        {"dtype": "F32", "shape": "290x64", "data_offsets": [0, 74240]},
        {"dtype": "F32", "shape": [290, 64], "data_offsets": [0]},
        {"dtype": "F32", "shape": [290, 64]},
        {"dtype": "F8_E4M3", "shape": [290, 64], "data_offsets": [0, 18560]},
        {"dtype": "F32", "shape": [1] * 100_000, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [float("nan"), 64], "data_offsets": [0, 74240]},
        {"dtype": ["F32"], "shape": [290, 64], "data_offsets": [0, 74240]},
        "F32",
        None,
    ],
)
def test_a_corrupt_header_is_refused_and_the_tensor_named(entry: object, folder: Path) -> None:
    rewrite_header(folder / WEIGHTS, lambda header: header.update({"model.embed_tokens.weight": entry}))
    with pytest.raises(BadCheckpoint, match=r"model\.embed_tokens\.weight"):
        open_safetensors(folder)


def test_tensors_that_share_bytes_are_refused(folder: Path) -> None:
    first, second = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
    rewrite_header(folder / WEIGHTS, lambda header: header.update({first: header[second]}))
    with pytest.raises(BadCheckpoint, match=r"layers\.0.*layers\.1.*share bytes"):
        open_safetensors(folder)


@pytest.mark.parametrize("name", ["\ud800", "two\nlines"])
def test_a_name_that_cannot_be_shown_is_refused(name: str, folder: Path) -> None:
    rewrite_header(folder / WEIGHTS, lambda header: header.update({name: header["model.norm.weight"]}))
    with pytest.raises(BadCheckpoint, match="makes no sense"):
        open_safetensors(folder)


def test_a_name_that_stands_twice_is_refused(folder: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}'
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(BadCheckpoint, match="twice"):
        open_safetensors(folder)


def test_a_config_that_claims_layers_without_end_is_refused_at_the_first_missing(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=2**31 - 1)
    with pytest.raises(MissingTensor, match=r"layers\.2\."):
        open_safetensors(folder)


@pytest.mark.parametrize(
    "data", [struct.pack("<Q", 2**63), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"{{{{", b"<html>not a model</html>"]
)
def test_what_is_no_safetensors_file_is_refused(data: bytes, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(BadCheckpoint):
        open_safetensors(folder)


@pytest.mark.parametrize(
    "index",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": "absent"}}']
    + [f'{{"weight_map": {{"a": "{name}"}}}}' for name in ("../secret.safetensors", "/etc/passwd", "..", ".", "", "a/b")],
)
def test_a_bad_index_is_refused(index: str, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadCheckpoint):
        open_safetensors(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = make_llama(tmp_path, shard_bytes=50_000)
    gone = min(folder.glob("model-*.safetensors"))
    gone.unlink()
    with pytest.raises(BadCheckpoint, match=gone.name):
        open_safetensors(folder)


def test_a_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    folder = make_llama(tmp_path, shard_bytes=50_000)
    index = folder / "model.safetensors.index.json"
    copied = min(folder.glob("model-*.safetensors"))
    (folder / "again.safetensors").write_bytes(copied.read_bytes())
    index.write_text(index.read_text().replace('"weight_map": {', '"weight_map": {"more": "again.safetensors",'))
    with pytest.raises(BadCheckpoint, match="in another shard too"):
        open_safetensors(folder)


def test_an_unknown_family_is_named_before_weights_are_looked_at(folder: Path) -> None:
    edit_config(folder, model_type="mamba")
    with pytest.raises(BadConfig, match="mamba"):
        open_safetensors(folder)


@settings(max_examples=60)
@given(at=st.integers(0, 4000), byte=st.integers(0, 255))
def test_no_single_byte_of_the_header_can_crash_us(at: int, byte: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A changed byte is either refused in one line, or harmless."""
    folder = tmp_path_factory.mktemp("flipped", numbered=True)
    make_by_hand(folder, LLAMA | {"num_hidden_layers": 1})
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[at] = byte
    (folder / WEIGHTS).write_bytes(data)
    with suppress(ThermoclineError):
        read_everything(open_safetensors(folder))
