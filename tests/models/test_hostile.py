"""Hostile files: damaged headers, truncations, tensors that overlap or lie outside, all end in one clear error."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint.safetensors import SafetensorsSource, open_safetensors
from models.checkpoint.weights import read_headers
from models.pack import pack
from models.packed import PackedModel
from tests.checkpoints import make_llama
from tests.fuzz import Specimen, fuzz

SOME, MANY = range(1500), range(1500, 21500)
TINY = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}


def specimen_of(path: Path) -> Specimen:
    data = path.read_bytes()
    return Specimen(data, 8 + int.from_bytes(data[:8], "little"))


def small_files(folder: Path) -> list[Specimen]:
    """Headers of one tensor and of several, of every type, with metadata, with a scalar and an empty tensor."""
    tensors = {
        "one": {"w": torch.ones(3, 4)},
        "several": {
            "a": torch.ones(2, dtype=torch.float16),
            "b.c": torch.ones(2, 3, 4).bfloat16(),
            "d": torch.zeros(0, 5),
            "e": torch.tensor(1.0),
        },
    }
    for name, named in tensors.items():
        save_file(named, folder / f"{name}.st", metadata={"format": "pt"})
    return [specimen_of(folder / f"{name}.st") for name in tensors]


def read_everything(folder: Path) -> None:
    """Headers, samples and every byte of every tensor."""
    source = SafetensorsSource(read_headers(folder))
    source.fingerprint("")
    for name in source.names():
        if source.shape(name):
            source.read(name)


def check_safetensors(folder: Path, cases: range) -> None:
    tally = fuzz(small_files(folder), folder / "model.safetensors", lambda: read_everything(folder), cases)
    assert tally.refused > len(cases) // 2
    assert tally.read > len(cases) // 50  # damage outside the header, and harmless damage within


def test_safetensors(tmp_path: Path) -> None:
    check_safetensors(tmp_path, SOME)


@pytest.mark.slow
def test_safetensors_at_length(tmp_path: Path) -> None:
    check_safetensors(tmp_path, MANY)


def check_checkpoint(folder: Path, cases: range) -> None:
    """The same door that a user's folder comes in by."""
    make_llama(folder, TINY)
    path = folder / "model.safetensors"

    def read() -> None:
        checkpoint = open_safetensors(folder)
        checkpoint.read("layers.0.q"), checkpoint.read("head")

    tally = fuzz([specimen_of(path)], path, read, cases)
    assert tally.refused > tally.read > 0


def test_a_checkpoint(tmp_path: Path) -> None:
    check_checkpoint(tmp_path / "model", range(300))


def check_packed(folder: Path, target: Path, cases: range) -> None:
    make_llama(folder, TINY)
    pack(open_safetensors(folder), target, "bf16", quiet=True)
    path = target / "manifest.json"
    data = path.read_bytes()

    def read() -> None:
        model = PackedModel.open(target)
        model.load_spine()
        for layer in range(model.manifest.spec.n_layers):
            model.load_banks(layer)

    tally = fuzz([Specimen(data, len(data))], path, read, cases)
    assert tally.refused > tally.read > 0


def test_a_packed_folder(tmp_path: Path) -> None:
    check_packed(tmp_path / "model", tmp_path / "packed", range(400))


@pytest.mark.slow
def test_a_packed_folder_at_length(tmp_path: Path) -> None:
    check_packed(tmp_path / "model", tmp_path / "packed", range(400, 6000))


def test_an_index_of_shards(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model", TINY, shard_bytes=2000)
    path = folder / "model.safetensors.index.json"
    data = path.read_bytes()
    tally = fuzz([Specimen(data, len(data))], path, lambda: open_safetensors(folder), range(400))
    assert tally.refused > tally.read > 0


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
            "share bytes",
        ),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}}, "truncated"),
        ({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**82]}}, "truncated"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}}, "makes no sense"),
        ({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 6]}}, "makes no sense"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "makes no sense"),
        ({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, "stored as I64"),
        ({"a\n": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "makes no sense"),
    ],
)
def test_what_is_said_of_a_header_that_lies(header: dict[str, object], complaint: str, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(12))
    with pytest.raises(Exception, match=complaint):
        read_headers(tmp_path)
