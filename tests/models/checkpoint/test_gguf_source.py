"""A GGUF file written by the gguf package from a small checkpoint gives that checkpoint's logits, packed, profiled and served alike."""

import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file

from models.bits import FormatName
from models.checkpoint.gguf import read_gguf
from models.checkpoint.gguf_blocks import EXACT
from models.checkpoint.gguf_config import ARCHITECTURES
from models.checkpoint.gguf_report import KEPT, STATED_ERROR
from models.checkpoint.gguf_source import open_gguf
from models.checkpoint.safetensors import open_safetensors
from models.cli import main
from models.errors import BadCheckpoint, BadConfig, MissingTensor
from models.library import known_manifest
from models.pack import pack, packed
from models.packed import PackedModel
from tests.checkpoints import LLAMA_VARIANTS, make_llama
from tests.conftest import CheckpointOf
from tests.families import make_changed
from tests.gguf_files import PLAIN, Config, Raw, Style, convert, interleaved, load_folder, predictor_tensors, text_key
from tests.models.running import dense, run_in_pieces
from tests.models.test_parity import assert_equal_logits, expected, prompt

UNTOLD = {"yarn_untruncated", "yarn_attention_factor"}  # what GGUF has no keys for
WIDE = {"hidden_size": 256, "intermediate_size": 512, "hidden_act": "silu", "num_hidden_layers": 1}


def packed_from(path: Path, target: Path, name: FormatName) -> PackedModel:
    pack(open_gguf(path), target, name, quiet=True)
    return PackedModel.open(target)


def assert_logits_of(folder: Path, path: Path, target: Path) -> None:
    """The file's logits are those of transformers, or of the reference, for the folder it was written from."""
    logits = run_in_pieces(dense(packed_from(path, target, "float32")), prompt(0), [20, 1, 27])
    assert_equal_logits(logits, expected(folder, 0))


@pytest.mark.parametrize("name", [name for name in LLAMA_VARIANTS if name not in UNTOLD])
def test_llama(name: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """PowerInfer's magic stands for ReLU, which has no key of its own."""
    style = Style(powerinfer=LLAMA_VARIANTS[name].get("hidden_act", "relu") == "relu")
    path = convert(checkpoint_of(name), tmp_path / "model.gguf", "llama", style)
    assert_logits_of(checkpoint_of(name), path, tmp_path / "packed")


@pytest.mark.parametrize("powerinfer", [False, True])
def test_bamboo(powerinfer: bool, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = convert(checkpoint_of("bamboo"), tmp_path / "model.gguf", "bamboo", Style(powerinfer=powerinfer))
    assert_logits_of(checkpoint_of("bamboo"), path, tmp_path / "packed")


@dataclass(frozen=True)
class Row:
    """A checkpoint of tests/families.py, or of these changes to one, as a file of `architecture`."""

    architecture: str
    name: str
    changes: Config = field(default_factory=dict)
    style: Style = PLAIN


SPARSE = Style(powerinfer=True)
LAYOUT: Config = {"num_hidden_layers": 6, "rope_layout": [0, 1, 1, 1, 0, 1], "sliding_window_layout": [0, 1, 1, 1, 0, 1]}
ROWS = {
    "mistral": Row("llama", "mistral"),
    "mixtral": Row("llama", "mixtral"),
    "falcon 7b": Row("falcon", "falcon_7b", style=SPARSE),
    "falcon 7b of biases": Row("falcon", "falcon_7b_gelu"),
    "falcon 40b": Row("falcon", "falcon_40b", style=SPARSE),
    "falcon of one norm": Row("falcon", "falcon_one_norm", style=SPARSE),
    "qwen2": Row("qwen2", "qwen2"),
    "qwen3": Row("qwen3", "qwen3"),
    "qwen3moe": Row("qwen3moe", "qwen3_moe_normalised"),
    "qwen3moe that does not normalise": Row("qwen3moe", "qwen3_moe", style=Style(keys={"expert_weights_norm": False})),
    "smallthinker": Row("smallthinker", "smallthinker", LAYOUT),
    "smallthinker, turned": Row("smallthinker", "smallthinker", LAYOUT | {"moe_ffn_hidden_size": 96}, Style(transposed="ffn_down_exps")),
    "smallthinker without windows": Row("smallthinker", "smallthinker_softmax", {"sliding_window_layout": [0, 0, 0]}),
    "opt": Row("opt", "opt", style=SPARSE),
    "opt, dense": Row("opt", "opt"),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_architecture(name: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    row = ROWS[name]
    folder = make_changed(tmp_path / row.name, row.name, row.changes) if row.changes else checkpoint_of(row.name)
    path = convert(folder, tmp_path / "model.gguf", row.architecture, row.style)
    assert_logits_of(folder, path, tmp_path / "packed")


def test_the_table_covers_every_architecture() -> None:
    assert {row.architecture for row in ROWS.values()} | {"bamboo"} == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ["llama", "falcon", "opt", "bamboo"])
def test_powerinfers_predictors_are_kept(architecture: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """With what they read and the score from which they name a neuron; exact selection leaves them alone."""
    folder = checkpoint_of({"llama": "relu", "falcon": "falcon_7b"}.get(architecture, architecture))
    style = Style(powerinfer=True, ranks=(32, 64), threshold=0.25)
    path = convert(folder, tmp_path / "model.gguf", architecture, style)
    assert_logits_of(folder, path, tmp_path / "packed")
    model = PackedModel.open(tmp_path / "packed")
    for layer, rank in enumerate(style.ranks):
        wanted = predictor_tensors(layer, rank, 64, 96)
        (predictor,) = model.load_predictors(layer)
        assert (predictor.threshold, predictor.reads) == (0.25, "residual")
        assert torch.equal(predictor.inward.decode(), wanted[f"blk.{layer}.fc1.weight"])
        assert torch.equal(predictor.outward.decode(), wanted[f"blk.{layer}.fc2.weight"])


def test_a_score_of_zero_is_enough_unless_a_threshold_is_told(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = convert(checkpoint_of("relu"), tmp_path / "model.gguf", "llama", Style(powerinfer=True, ranks=(32, 32)))
    told = open_gguf(path).spec.predictors
    assert told is not None
    assert (told.ranks, told.threshold, told.masks) == ((32, 32), 0.0, False)


def test_a_predictor_that_is_missing_is_named(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = convert(checkpoint_of("relu"), tmp_path / "model.gguf", "llama", Style(powerinfer=True, ranks=(32,)))
    with pytest.raises(MissingTensor, match=r"blk\.1\.fc1\.weight"):
        open_gguf(path)


def test_experts_as_they_were_written_at_first(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """A tensor of its own for every expert's matrix."""
    path = convert(checkpoint_of("mixtral"), tmp_path / "model.gguf", "llama", Style(numbered_experts=True))
    assert "blk.0.ffn_gate.3.weight" in read_gguf(path).tensors
    assert_logits_of(checkpoint_of("mixtral"), path, tmp_path / "packed")


def test_begin_and_end_come_from_the_file(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """An end of turn ends a text too."""
    folder = open_safetensors(checkpoint_of("silu"))
    spec = open_gguf(convert(checkpoint_of("silu"), tmp_path / "model.gguf", "llama")).spec
    assert (spec.bos, spec.eos) == (folder.spec.bos, folder.spec.eos) == (288, (289,))
    spec = open_gguf(convert(checkpoint_of("silu"), tmp_path / "eot.gguf", "llama", Style(end_of_turn=7))).spec
    assert spec.eos == (7, 289)


def test_shards_are_one_model(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    convert(checkpoint_of("silu"), tmp_path / "model.gguf", "llama", Style(shard_tensors=7))
    shards = sorted(tmp_path.glob("*.gguf"))
    assert len(shards) > 2
    assert_logits_of(checkpoint_of("silu"), shards[1], tmp_path / "packed")
    assert open_gguf(shards[1]).fingerprint == open_gguf(shards[0]).fingerprint


def test_links_of_a_hubs_cache_keep_their_names(checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, every file is a link to one that is called by its hash."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    convert(checkpoint_of("silu"), tmp_path / "some.gguf", "llama", Style(shard_tensors=12))
    (tmp_path / "snapshot").mkdir()
    for number, shard in enumerate(sorted(tmp_path.glob("*.gguf"))):
        blob = shard.rename(tmp_path / f"blob{number}")
        (tmp_path / "snapshot" / shard.name).symlink_to(blob)
    model = packed(str(tmp_path / "snapshot"), "int8", quiet=True)
    assert model.manifest.name.startswith("some-00001-of-")
    assert known_manifest(str(tmp_path / "snapshot"), "int8") == model.manifest.model_copy(update={"spine": {}})


def test_of_several_files_one_must_be_named(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert(checkpoint_of("silu"), tmp_path / f"{name}.gguf", "llama")
    with pytest.raises(BadCheckpoint, match=r"holds 2 GGUF files; name one of them, like a\.gguf"):
        known_manifest(str(tmp_path))


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(("kind", "name"), [("F16", "float32"), ("BF16", "float32"), ("BF16", "bf16"), ("F16", "bf16")])
def test_halves_are_read_as_they_are(kind: str, name: FormatName, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """The same as from a folder with the same halves."""
    path = convert(checkpoint_of("silu"), tmp_path / "model.gguf", "llama", Style(kind))
    found, folder = open_gguf(path), open_safetensors(checkpoint_of("silu"))
    dtype = torch.float16 if kind == "F16" else torch.bfloat16
    for canonical in ("embed", "layers.0.q", "layers.1.o", "layers.1.experts.0.gate", "layers.0.experts.0.down"):
        assert torch.equal(found.stored(canonical, 3, 11), folder.stored(canonical, 3, 11).to(dtype)), canonical
    model = packed_from(path, tmp_path / "packed", name)
    _, bank = model.load_banks(1)[0]
    assert torch.equal(bank.down.decode(), found.read("layers.1.experts.0.down").T.to(bank.down.planes[0].dtype).float())


@pytest.mark.parametrize(("kind", "name"), [("Q8_0", "int8"), ("Q4_0", "int4"), ("Q4_0", "int8"), ("Q5_0", "int8")])
@pytest.mark.parametrize("powerinfer", [False, True])
def test_rows_are_taken_over_bit_for_bit(
    kind: str, name: FormatName, powerinfer: bool, checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    """Gate, up, q, k, v, o, embedding and head, and PowerInfer's turned down, hold the very numbers the package reads from the file."""
    path = convert(checkpoint_of("relu"), tmp_path / "model.gguf", "llama", Style(kind, powerinfer=powerinfer))
    data = bytearray(path.read_bytes())
    data[:4] = b"GGUF"
    (tmp_path / "plain.gguf").write_bytes(data)
    theirs = {
        tensor.name: torch.tensor(dequantize(tensor.data, tensor.tensor_type)) for tensor in GGUFReader(tmp_path / "plain.gguf").tensors
    }
    model = packed_from(path, tmp_path / "packed", name)
    spine, (_, bank) = model.load_spine(), model.load_banks(1)[0]
    assert bank.gate is not None
    assert torch.equal(bank.gate.decode(), theirs["blk.1.ffn_gate.weight"])
    assert torch.equal(bank.up.decode(), theirs["blk.1.ffn_up.weight"])
    if powerinfer:
        assert torch.equal(bank.down.decode(), theirs["blk.1.ffn_down_t.weight"])
    assert torch.equal(spine.layers[1].o.decode(), theirs["blk.1.attn_output.weight"])
    q, k, v = spine.layers[1].qkv.decode().split((64, 32, 32))
    assert torch.equal(interleaved(q, 4), theirs["blk.1.attn_q.weight"])
    assert torch.equal(interleaved(k, 2), theirs["blk.1.attn_k.weight"])
    assert torch.equal(v, theirs["blk.1.attn_v.weight"])
    assert torch.equal(spine.entrance.embed.decode(), theirs["token_embd.weight"])
    assert torch.equal(spine.head.decode(), theirs["output.weight"])


# An ordinary `ffn_down` of Q8_0 or Q4_0, whose blocks lie along the neurons, and what our formats have no equal of.
REQUANTISED: list[tuple[str, FormatName]] = [
    *((kind, "int8") for kind in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "F16")),
    *((kind, "int4") for kind in ("Q8_0", "Q4_0", "Q4_K", "Q6_K")),
    ("F16", "bf16"),
    ("Q8_0", "bf16"),
]


@pytest.mark.parametrize(("kind", "name"), REQUANTISED)
def test_what_is_requantised_keeps_to_the_stated_error(kind: str, name: FormatName, tmp_path: Path) -> None:
    """And so does what could be taken over, whose error is none."""
    folder = make_llama(tmp_path / "folder", WIDE)
    path = convert(folder, tmp_path / "model.gguf", "llama", Style(kind))
    found = open_gguf(path)
    _, bank = packed_from(path, tmp_path / "packed", name).load_banks(0)[0]
    assert bank.gate is not None
    for rows, wanted in ((bank.gate, found.read("layers.0.experts.0.gate")), (bank.down, found.read("layers.0.experts.0.down").T)):
        error = (rows.decode() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert error <= STATED_ERROR[name]
    assert error > 0


def test_packing_says_what_it_kept_and_what_it_encoded_anew(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    path = convert(checkpoint_of("silu"), tmp_path / "a.gguf", "llama", Style("Q4_0", {"token_embd.weight": "Q5_1"}))
    assert main(["pack", str(path)]) == 0
    *_, kept, embedding, down = capsys.readouterr().out.splitlines()
    assert set(kept.removeprefix("as in the file: ").split(", ")) == {
        "output", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
    }  # fmt: skip
    assert embedding == "from Q5_1 to int8, error at most 0.006 of the weights: token_embd"
    assert down == "from Q4_0 to int4, error at most 0.09 of the weights: ffn_down (their blocks lie along the neurons)"
    convert(checkpoint_of("relu"), path, "llama", Style("Q4_0", powerinfer=True))
    assert main(["pack", str(path)]) == 0
    assert "ffn_down" in capsys.readouterr().out.splitlines()[-1].removeprefix("as in the file: ").split(", ")


def test_what_is_said_to_be_kept_is_what_can_be() -> None:
    """Encoding floats as wider ones loses nothing."""
    assert KEPT - set(EXACT) == {("F32", "float32"), ("F16", "float32"), ("BF16", "float32"), ("BF16", "bf16")}
    assert set(EXACT) <= KEPT


@pytest.mark.parametrize(
    ("kind", "name"), [("F32", "bf16"), ("F16", "bf16"), ("BF16", "bf16"), ("Q4_0", "int4"), ("Q8_0", "int8"), ("Q4_K", "int8")]
)
def test_the_default_format_is_the_smallest_that_holds_the_neurons(
    kind: str, name: FormatName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    path = convert(make_llama(tmp_path / "folder", WIDE), tmp_path / "some.gguf", "llama", Style(kind, {"token_embd.weight": "F16"}))
    before = known_manifest(str(path))
    model = packed(str(path), quiet=True)
    assert before.formats.neurons == name
    assert model.manifest.model_copy(update={"spine": {}}) == before
    assert model.manifest.name == "some"
    assert packed(str(path.parent), quiet=True).folder == model.folder, "the only GGUF file of a folder is that folder's model"


# ---------------------------------------------------------------- what does not fit is named


def rewritten(folder: Path, path: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """The file with tensors changed, added or (None) left out, by their names in the folder."""
    tensors = load_folder(folder) | {name: tensor for name, tensor in change.items() if tensor is not None}
    other = path.with_suffix("")
    shutil.copytree(folder, other)
    save_file({name: tensor for name, tensor in tensors.items() if change.get(name, tensor) is not None}, other / "model.safetensors")
    return convert(other, path, "llama")


def test_a_missing_a_strange_and_a_misshapen_tensor_are_named(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    folder, at = checkpoint_of("silu"), "model.layers.1."
    with pytest.raises(MissingTensor, match=r"blk\.1\.ffn_up\.weight"):
        open_gguf(rewritten(folder, tmp_path / "a.gguf", {f"{at}mlp.up_proj.weight": None}))
    with pytest.raises(BadCheckpoint, match=r"blk\.1\.attn_q\.bias' is no part"):
        open_gguf(rewritten(folder, tmp_path / "b.gguf", {f"{at}self_attn.q_proj.bias": torch.ones(64)}))
    with pytest.raises(BadCheckpoint, match=r"blk\.1\.ffn_up\.weight' has shape \[64, 64\]"):
        open_gguf(rewritten(folder, tmp_path / "c.gguf", {f"{at}mlp.up_proj.weight": torch.ones(64, 64)}))
    with pytest.raises(BadCheckpoint, match=r"blk\.0\.attn_q\.weight' has 64 rows, which are not 6 heads"):
        open_gguf(convert(folder, tmp_path / "d.gguf", "llama", Style(keys={"attention.head_count": 6})))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"expert_shared_count": 2}, "'llama.expert_shared_count': 2: a feature this program does not know"),
        ({"rope.scaling.type": "longrope"}, "'longrope' is not supported; supported: none, linear, yarn"),
        ({"attention.key_length": 16, "attention.value_length": 32}, "'llama.attention.value_length': 32"),
        ({"attention.key_length": 64}, "'llama.rope.dimension_count' is 16; only whole heads, of 64"),
        ({"logit_scale": 0.5}, "llama.logit_scale"),
    ],
)
def test_a_key_that_says_what_we_do_not_have_is_named(
    keys: dict[str, object], why: str, checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    with pytest.raises(BadCheckpoint, match=why):
        open_gguf(convert(checkpoint_of("silu"), tmp_path / "a.gguf", "llama", Style(keys=keys)))


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = Raw([text_key("general.architecture", "mamba")]).write(tmp_path / "a.gguf")
    with pytest.raises(BadCheckpoint, match="architecture 'mamba', which we do not read; those we do: bamboo, "):
        open_gguf(path)


def test_rope_divisors_of_no_llama_are_refused(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = convert(checkpoint_of("llama3"), tmp_path / "a.gguf", "llama")
    data, stored = bytearray(path.read_bytes()), read_gguf(path).tensors["rope_freqs.weight"]
    for number, why in ((7.5, "in a way we do not know"), (float("nan"), "divide no frequency"), (-1.0, "divide no frequency")):
        data[stored.offset : stored.offset + 4] = struct.pack("<f", number)
        path.write_bytes(data)
        with pytest.raises(BadCheckpoint, match=why):
            open_gguf(path)


def test_a_config_that_is_refused_is_refused_here_too(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    keys = {"attention.head_count_kv": 3}
    with pytest.raises((BadConfig, BadCheckpoint)) as caught:
        open_gguf(convert(checkpoint_of("silu"), tmp_path / "a.gguf", "llama", Style(keys=keys)))
    assert "\n" not in str(caught.value)
