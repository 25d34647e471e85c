"""A step that is played back gives the bits of one that is computed, whatever came before it."""

import pytest
import torch

import cpu_ops
from cpu_ops.replay import _RECORDED, Recorded
from gpu_ops.transfer import Staging
from models.bits import FormatName
from models.kv_cache import KvCache
from models.packed import PackedModel
from models.predictor import Predictor
from models.rows import Rows
from models.spec import ModelSpec
from models.step import Step
from models.transformer import Transformer
from server.split_ffn import SplitBank, SplitFfn
from tests.conftest import PackedOf
from tests.models.running import Part, cache_for, run_step


def cold_model(packed: PackedModel, *, repeats: bool, rank: int = 0) -> Transformer:
    """`rank`: of random predictors, one a layer, that name about half of the neurons."""
    spec = packed.manifest.spec
    banks = [
        [SplitBank(*pair, random_predictor(spec, layer, rank) if rank else None) for pair in packed.load_banks(layer, None, [0])]
        for layer in range(spec.n_layers)
    ]
    ffn = SplitFfn(spec.rule, banks, Staging(torch.device("cpu"), tokens=64, hidden=spec.hidden))
    assert ffn.repeats
    return Transformer(spec, packed.load_spine(), ffn, cpu_ops, repeat=cpu_ops.replayed if repeats else None)


def random_predictor(spec: ModelSpec, layer: int, rank: int) -> Predictor:
    generator = torch.Generator().manual_seed(layer)
    inward, outward = (torch.randn(*shape, generator=generator) for shape in ((rank, spec.hidden), (spec.n_neurons, rank)))
    return Predictor(Rows.encode("int8", inward), Rows.encode("int4", outward), 0.0, "residual" if layer % 2 else "normed")


REPEATS = (None, cpu_ops.replayed)


def recorded_of(cache: KvCache, tokens: int) -> Recorded:
    recorded = _RECORDED[cache][tokens]
    assert recorded is not None
    return recorded


STEPS: list[list[Part]] = [
    [Part(0, 0, list(range(20, 50)))],  # a prompt, which is never recorded
    [Part(0, 30, [7])],  # recorded
    [Part(0, 31, [8])],
    [Part(1, 0, [3, 4, 5])],  # three tokens: a tape of their own
    [Part(0, 32, [9]), Part(1, 3, [6])],
    [Part(0, 33, [10])],  # played
    [Part(1, 4, [11])],  # another slot, another position
    [Part(1, 5, [12, 13]), Part(0, 34, [14])],
    [Part(2, 0, list(range(20, 50)))],  # another prompt
    [Part(2, 30, [7])],  # played, as before it
    [Part(0, 36, [15])],
]


@pytest.mark.parametrize("format_name", ["bf16", "int4"])
@pytest.mark.parametrize("name", ["relu", "mlp_bias", "bamboo", "bundled"])
def test_every_step_has_the_bits_of_a_computed_one(name: str, format_name: FormatName, packed_of: PackedOf) -> None:
    packed = packed_of(name, format_name)
    computed, played = (cold_model(packed, repeats=repeats) for repeats in (False, True))
    caches = [cache_for(model, slots=3) for model in (computed, played)]
    for step in STEPS:
        expected, got = (run_step(model, cache, step) for model, cache in zip((computed, played), caches, strict=True))
        assert all(torch.equal(one, other) for one, other in zip(expected, got, strict=True)), step
    assert None not in _RECORDED[caches[1]].values()
    assert torch.equal(torch.stack(list(caches[0].keys)), torch.stack(list(caches[1].keys)))


@pytest.mark.parametrize("format_name", ["bf16", "int4"])
def test_predicted_steps_too(format_name: FormatName, packed_of: PackedOf) -> None:
    packed = packed_of("relu", format_name)
    computed, played = (cold_model(packed, repeats=repeats, rank=64) for repeats in (False, True))
    caches = [cache_for(model, slots=3) for model in (computed, played)]
    for step in STEPS:
        expected, got = (run_step(model, cache, step) for model, cache in zip((computed, played), caches, strict=True))
        assert all(torch.equal(one, other) for one, other in zip(expected, got, strict=True)), step
    assert None not in _RECORDED[caches[1]].values()


def test_a_step_of_each_size_is_recorded_once(packed_of: PackedOf) -> None:
    model = cold_model(packed_of("bundled", "int4"), repeats=True)
    cache = cache_for(model, slots=3)
    for step in STEPS:
        run_step(model, cache, step)
    assert sorted(_RECORDED[cache]) == [1, 2, 3]
    tape = recorded_of(cache, 1).tape
    run_step(model, cache, [Part(0, 35, [1])])
    assert recorded_of(cache, 1).tape is tape


def test_a_model_that_needs_torch_besides_is_computed(packed_of: PackedOf, caplog: pytest.LogCaptureFixture) -> None:
    """Its last state doubled in torch, as some family might: playing the kernels alone would leave that out."""

    class Doubling(Transformer):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return super().logits(x * 2)

    packed = packed_of("relu", "bf16")
    built = [cold_model(packed, repeats=repeats) for repeats in (False, True)]
    computed, played = (Doubling(one.spec, one.spine, one.ffn, one.ops, repeat=repeat) for one, repeat in zip(built, REPEATS, strict=True))
    caches = [cache_for(model, slots=3) for model in (computed, played)]
    with caplog.at_level("INFO", "cpu_ops.replay"):
        for step in STEPS:
            expected, got = (run_step(model, cache, step) for model, cache in zip((computed, played), caches, strict=True))
            assert all(torch.equal(one, other) for one, other in zip(expected, got, strict=True)), step
    assert set(_RECORDED[caches[1]].values()) == {None}
    assert "'mul'" in caplog.text


def test_logits_of_some_rows_only(packed_of: PackedOf) -> None:
    """A short prompt wants its last row: it is computed, and has the bits of one that is played back and wants all."""
    model = cold_model(packed_of("bundled", "bf16"), repeats=True)
    cache = cache_for(model, slots=3)
    for start in (0, 3, 6):
        part = [Part(0, start, [5, 6, 7])]
        whole = run_step(model, cache, part)[0]
        last = Step(torch.tensor([5, 6, 7]), torch.arange(start, start + 3), torch.zeros(3, dtype=torch.int64), torch.tensor([2]))
        assert torch.equal(model.forward(last, cache)[0], whole[2])
    assert sorted(_RECORDED[cache]) == [3]


def test_tapes_of_fewer_tokens_take_no_memory_beside_that_of_the_most(packed_of: PackedOf) -> None:
    """And what is played back is right whatever was recorded and played on the same memory since: every tape against its first time."""
    model = cold_model(packed_of("bamboo", "int4"), repeats=True)
    cache = cache_for(model, slots=5)
    steps = [[Part(slot, 0, [slot + 20]) for slot in range(tokens)] for tokens in (5, 1, 4, 2, 3)]
    first = [run_step(model, cache, steps[0])]
    reel = _RECORDED[cache].reel
    pieces, nbytes = list(reel.pieces), reel.nbytes
    first += [run_step(model, cache, step) for step in steps[1:]]
    assert sorted(_RECORDED[cache]) == [1, 2, 3, 4, 5]
    assert reel.nbytes == nbytes
    assert all(now is then for now, then in zip(reel.pieces, pieces, strict=True))
    for _ in range(2):
        again = [run_step(model, cache, step) for step in steps]
        assert all(torch.equal(now[0], then[0]) for now, then in zip(again, first, strict=True))


def test_more_tokens_than_slots_leave_no_tape(packed_of: PackedOf) -> None:
    """Scored prompts may have any number of tokens, and would leave one for each."""
    model = cold_model(packed_of("bundled", "bf16"), repeats=True)
    cache = cache_for(model, slots=2)
    for tokens in range(1, 9):
        run_step(model, cache, [Part(0, 0, list(range(tokens)))])
    assert sorted(_RECORDED[cache]) == [1, 2]


def test_tapes_go_with_their_cache(packed_of: PackedOf) -> None:
    model = cold_model(packed_of("bundled", "bf16"), repeats=True)
    before = len(_RECORDED)
    cache: KvCache | None = cache_for(model)
    assert cache is not None
    run_step(model, cache, [Part(0, 0, [1])])
    assert len(_RECORDED) == before + 1
    del cache
    assert len(_RECORDED) == before
