"""The planted law: neurons fire as often as they were meant to, at every depth, and the disk holds one layer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cpu_ops
from benchmarks.activity import Activity, Counting
from benchmarks.planted import EXPONENT, FIRING, HIGHEST, PASSING, firing_rates
from benchmarks.synthetic import build
from models.ffn import DenseFfn, neurons
from models.layout import layer_file
from models.packed import PackedModel
from models.spec import FfnRule, ModelSpec, Rope
from models.transformer import Transformer
from tests.models.running import Part, cache_for, run_step

SMALL = ModelSpec(
    family="llama",
    n_layers=4,
    hidden=256,
    n_heads=4,
    n_kv_heads=2,
    head_dim=64,
    n_neurons=640,
    vocab=500,
    context=128,
    rule=FfnRule("gated", "relu"),
    rope=Rope(10000.0, 64),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PackedModel:
    return build("small", SMALL, tmp_path_factory.mktemp("synthetic"))


def test_rates_are_a_power_law_of_the_wanted_mean() -> None:
    rates = firing_rates(5632)
    assert rates.mean().item() == pytest.approx(FIRING, rel=1e-6)
    assert rates.max() <= HIGHEST
    tail = rates[rates < HIGHEST]
    assert (tail[-1] / tail[0]).item() == pytest.approx((5632 / (5632 - len(tail) + 1)) ** -EXPONENT, rel=1e-6)


def activities(model: PackedModel) -> list[Activity]:
    """Of every layer, over a hundred tokens."""
    spec = model.manifest.spec
    banks = [[model.load_banks(layer)[0][1]] for layer in range(4)]
    counting = Counting(DenseFfn(spec.rule, banks), spec.rule, {layer: banks[layer][0] for layer in range(4)})
    transformer = Transformer(spec, model.load_spine(), counting, cpu_ops)
    tokens = torch.randint(0, 500, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    (logits,) = run_step(transformer, cache_for(transformer, context=128), [Part(0, 0, tokens)])
    assert logits.isfinite().all()
    assert len(counting.counts) == 4
    return counting.counts


def test_a_tenth_of_the_neurons_fires_at_every_depth(model: PackedModel) -> None:
    for counted in activities(model):
        assert counted.passed == pytest.approx(FIRING, abs=0.015)
        assert counted.fired == pytest.approx(counted.passed, abs=0.001)


def test_where_gate_and_up_are_rectified_three_gates_pass_for_each_that_fires(tmp_path: Path) -> None:
    spec = replace(SMALL, rule=FfnRule("gated_both", "relu"))
    for counted in activities(build("both", spec, tmp_path)):
        assert counted.passed == pytest.approx(PASSING, abs=0.02)
        assert counted.fired == pytest.approx(FIRING, abs=0.015)


def test_some_neurons_fire_almost_always_and_most_hardly_ever(model: PackedModel) -> None:
    [(_, bank)] = model.load_banks(0)
    states = torch.randn(2000, SMALL.hidden, generator=torch.Generator().manual_seed(2))
    states[:, :32] = 0.0
    states[:, 0] = 4.0
    normed = torch.nn.functional.rms_norm(states, (SMALL.hidden,))
    rates = (neurons(bank, bank.up.format.input(normed), SMALL.rule) != 0).float().mean(0).sort(descending=True).values
    wanted = firing_rates(SMALL.n_neurons).float()
    assert torch.allclose(rates, wanted, atol=0.06)
    assert rates[: SMALL.n_neurons // 4].sum() > 0.5 * rates.sum()


def test_the_constant_channel_stays_constant(model: PackedModel) -> None:
    [(_, bank)] = model.load_banks(0)
    layer = model.load_layer_spine(0)
    assert not bank.down.decode()[:, :32].any()
    assert not layer.o.decode()[:32].any()
    embed = model.load_spine().entrance.embed.decode()
    assert (embed[:, 0] == embed[0, 0]).all()
    assert not embed[:, 1:32].any()


def test_layers_are_one_file_under_many_names(model: PackedModel) -> None:
    assert len({(model.folder / layer_file(layer)).stat().st_ino for layer in range(4)}) == 1
    [(_, first)], [(_, last)] = model.load_banks(0), model.load_banks(3)
    assert first.gate is not None
    assert last.gate is not None
    assert torch.equal(first.gate.planes[0], last.gate.planes[0])
    assert first.gate.planes[0].data_ptr() != last.gate.planes[0].data_ptr()


def test_a_second_build_finds_the_first(model: PackedModel) -> None:
    stamp = (model.folder / "spine.bin").stat().st_mtime_ns
    assert build("small", SMALL, model.folder).manifest == model.manifest
    assert (model.folder / "spine.bin").stat().st_mtime_ns == stamp


def test_a_model_of_other_shapes_under_the_name_is_written_again(tmp_path: Path) -> None:
    build("small", SMALL, tmp_path)
    wider = replace(SMALL, n_neurons=704)
    assert build("small", wider, tmp_path).load_banks(3)[0][1].up.n == 704


def test_the_same_seed_gives_the_same_bytes(model: PackedModel, tmp_path: Path) -> None:
    again = build("small", SMALL, tmp_path / "again")
    assert (again.folder / layer_file(0)).read_bytes() == (model.folder / layer_file(0)).read_bytes()
    assert (again.folder / "spine.bin").read_bytes() == (model.folder / "spine.bin").read_bytes()
