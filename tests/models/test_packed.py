"""Loading: every neuron where the order puts it, hot and cold parted, and little memory beyond what is kept."""

import json
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.bank import NeuronBank
from models.bits import FORMAT_NAMES, FormatName
from models.checkpoint.safetensors import open_safetensors
from models.errors import BadArtefact
from models.formats import FORMATS
from models.pack import pack
from models.packed import PackedModel
from models.spine import Spine
from tests.checkpoints import make_by_hand
from tests.conftest import CheckpointOf, PackedOf

ROOT = Path(__file__).parents[2]
N = 96
every_format = pytest.mark.parametrize("name", FORMAT_NAMES)


def planes(bank: NeuronBank) -> list[Tensor]:
    """Everything a bank holds, as plain tensors whose dimension 0 is the neuron."""
    assert bank.gate is not None
    biases = [bias for bias in (bank.gate_bias, bank.up_bias) if bias is not None]
    return [*bank.gate.planes, *bank.up.planes, *bank.down.planes, *biases]


def assert_same_bank(one: NeuronBank, other: NeuronBank) -> None:
    for left, right in zip(planes(one), planes(other), strict=True):
        assert torch.equal(left, right)


@every_format
def test_a_bank_holds_the_checkpoints_rows(name: FormatName, checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    checkpoint, model = open_safetensors(checkpoint_of("mlp_bias")), packed_of("mlp_bias", name)
    [(hot, bank)] = model.load_banks(1)
    assert len(hot) == 0
    encode = FORMATS[name].encode
    base = "layers.1.experts.0"
    wanted = [
        *encode(checkpoint.read(f"{base}.gate")),
        *encode(checkpoint.read(f"{base}.up")),
        *encode(checkpoint.read(f"{base}.down").T.contiguous()),
        checkpoint.read(f"{base}.gate_bias"),
        checkpoint.read(f"{base}.up_bias"),
    ]
    for left, right in zip(planes(bank), wanted, strict=True):
        assert torch.equal(left, right)


@given(seed=st.integers(0, 1000), hot=st.integers(0, N), name=st.sampled_from(FORMAT_NAMES), variant=st.sampled_from(["relu", "mlp_bias"]))
def test_the_order_puts_neurons_in_place_and_the_hot_count_parts_them(
    seed: int, hot: int, name: FormatName, variant: str, packed_of: PackedOf
) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    model = packed_of(variant, name)
    [(_, whole)] = model.load_banks(0)
    [(warm, cold)] = model.load_banks(0, order.unsqueeze(0), [hot])
    assert (len(warm), len(cold)) == (hot, N - hot)
    assert_same_bank(warm, whole[order[:hot]])
    assert_same_bank(cold, whole[order[hot:]])


def test_hot_without_an_order_is_the_first_of_the_file(packed_of: PackedOf) -> None:
    model = packed_of("relu", "int8")
    [(_, whole)] = model.load_banks(0)
    [(warm, cold)] = model.load_banks(0, hot=[10])
    assert_same_bank(warm, whole[:10])
    assert_same_bank(cold, whole[10:])


def test_up_and_down_of_a_neuron_lie_side_by_side(packed_of: PackedOf) -> None:
    [(_, bank)] = packed_of("relu", "int4").load_banks(0)
    up, down = bank.up.planes[0], bank.down.planes[0]
    assert down.data_ptr() - up.data_ptr() == bank.up.format.row_bytes(64)
    assert up.stride(0) == 2 * bank.up.format.row_bytes(64)


def test_cold_rows_go_where_the_caller_says(packed_of: PackedOf) -> None:
    arena, used = torch.zeros(1 << 20, dtype=torch.uint8), 0

    def place(count: int) -> Tensor:
        nonlocal used
        used += count
        return arena[used - count : used]

    model = packed_of("relu", "bf16")
    [(_, cold)] = model.load_banks(0, hot=[30], allocate=place)
    assert used == cold.nbytes
    assert cold.gate is not None
    assert arena.data_ptr() <= cold.gate.planes[0].data_ptr() < arena.data_ptr() + used


@pytest.mark.parametrize("variant", ["tied", "mlp_bias", "mixtral"])
def test_a_model_is_loaded_whole_as_it_is_in_parts(variant: str, packed_of: PackedOf) -> None:
    model = packed_of(variant, "int8")
    spine, banks = model.load(lambda layer: model.load_banks(layer))
    for layer, loaded in enumerate(banks):
        for (_, one), (_, other) in zip(loaded, model.load_banks(layer), strict=True):
            assert_same_bank(one, other)
    for left, right in zip(spine_planes(spine), spine_planes(model.load_spine()), strict=True):
        assert torch.equal(left, right)
    assert len(banks) == model.manifest.spec.n_layers


def spine_planes(spine: Spine) -> list[Tensor]:
    """Of its matrices, and the gains of its norms."""
    matrices = [spine.entrance.embed, spine.head, *(rows for layer in spine.layers for rows in (layer.qkv, layer.o))]
    norms = [spine.norm, *(norm for layer in spine.layers for norm in (layer.attention_norm, layer.ffn_norm))]
    return [plane for rows in matrices for plane in rows.planes] + [norm.gain for norm in norms if norm is not None]


def test_a_layer_that_cannot_be_loaded_is_heard(packed_of: PackedOf) -> None:
    model = packed_of("relu", "int8")
    with pytest.raises(IndexError):
        model.load(lambda layer: [0][layer])


@pytest.mark.parametrize("quiet", [True, False])
def test_loading_shows_how_far_it_is(quiet: bool, packed_of: PackedOf, capsys: pytest.CaptureFixture[str]) -> None:
    model = packed_of("relu", "int8")
    model.load(lambda layer: model.load_banks(layer), quiet=quiet)
    shown = capsys.readouterr().err
    assert shown == "" if quiet else "loading: 100%" in shown


MEASURED_LOADER = """
import sys
from functools import reduce
from operator import getitem
from pathlib import Path
import torch
from models.packed import PackedModel
from models.spine import Spine
from tests.models.running import peak_bytes
torch.set_num_threads(1)

def load(folder):
    model = PackedModel.open(Path(folder))
    spec = model.manifest.spec
    order = torch.arange(spec.n_neurons).flip(0).unsqueeze(0)
    banks = [model.load_banks(layer, order, [spec.n_neurons // 3]) for layer in range(spec.n_layers)]
    return model.manifest, model.load_spine(), banks

load(sys.argv[1])  # a tiny one: the pages of torch's own code that loading touches are no part of the model
before = peak_bytes()
manifest, *kept = load(sys.argv[2])
print(peak_bytes() - before, manifest.spine_bytes + manifest.neurons_bytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bf16", "int4"])
def test_loading_takes_what_it_keeps_and_ten_percent(name: FormatName, tmp_path: Path, packed_of: PackedOf) -> None:
    big = {"model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 3, "vocab_size": 4096}
    folder = make_by_hand(tmp_path / "big", big, dtype=torch.bfloat16)
    pack(open_safetensors(folder), tmp_path / "packed", name, quiet=True)
    command = [sys.executable, "-c", MEASURED_LOADER, str(packed_of("relu", name).folder), str(tmp_path / "packed")]
    grown, kept = map(int, subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split())
    assert 0.95 * kept < grown < 1.1 * kept


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("sizes", "gate_row"), -1),
        (("sizes", "embedding"), 2**62),
        (("spec", "n_layers"), 2**40),
        (("spec", "n_neurons"), 0),
        (("spec", "n_kv_heads"), 0),
        (("spine", "norm", "offset"), -64),
        (("spine", "norm", "rows"), 2**62),
        (("spine", "norm", "rows"), -1),
        (("spine", "embed", "offset"), 2**62),
        (("spine", "embed", "width"), 32),
        (("spine", "embed", "format"), "float32"),
        (("spine", "layers.1.qkv"), None),
        (("formats", "neurons"), "bf16"),
    ],
)
def test_a_manifest_edited_by_hand_reaches_no_byte(at: tuple[str, ...], value: object, packed_of: PackedOf, tmp_path: Path) -> None:
    folder = packed_of("relu", "int8").folder
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    data = json.loads((folder / "manifest.json").read_text())
    inner = reduce(getitem, at[:-1], data)
    inner[at[-1]] = value
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BadArtefact, match="models rm"):
        PackedModel.open(tmp_path)
