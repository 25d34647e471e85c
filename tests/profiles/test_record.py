"""Counts are those of an independent look at the same activations, however the work was cut up."""

import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gpu_ops
from models.bank import NeuronBank
from models.bits import FormatName
from models.errors import BadArtefact, WrongModel
from models.kv_cache import KvCache
from models.packed import PackedModel
from models.rows import Rows
from models.spec import FfnRule
from models.step import Step
from models.transformer import Transformer
from profiles import record as recorder
from profiles.corpus import Chunk, Text
from profiles.firing import FiringProfile, load_profile, save_profile
from profiles.record import LayerwiseModel, record, share
from profiles.recording import RecordingFfn, Tally, fire, nothing_yet
from tests.conftest import PackedOf

VARIANTS = ["relu", "mlp_bias", "sparsellama", "bamboo", "bamboo_window"]


def make_text(*lengths: int) -> Text:
    """Random chunks of these lengths, halves in turn."""
    drawn = random.Random(0)
    chunks = tuple(Chunk(tuple(drawn.randrange(280) for _ in range(length)), i % 2 == 0) for i, length in enumerate(lengths))
    return Text(chunks, f"random text {lengths}")


TEXT = make_text(30, 1, 17, 64, 5, 40, 64, 64)


def step_of(chunk: Chunk) -> Step:
    tokens = torch.tensor(chunk.tokens)
    return Step(tokens, torch.arange(len(tokens)), torch.zeros_like(tokens), torch.arange(len(tokens)))


def whole_model(packed: PackedModel, ffn: RecordingFfn) -> Transformer:
    return Transformer(packed.manifest.spec, packed.load_spine(), ffn, gpu_ops)


def banks_of(packed: PackedModel) -> dict[int, list[NeuronBank]]:
    return {layer: [cold for _, cold in packed.load_banks(layer)] for layer in range(packed.manifest.spec.n_layers)}


def same(one: FiringProfile, two: FiringProfile) -> bool:
    return all(np.array_equal(getattr(one, field.name), getattr(two, field.name)) for field in fields(FiringProfile))


def independent_rule(rule: FfnRule) -> Callable[[Tensor], Tensor]:
    """Which pre-activations are over the line, in the words of the papers."""
    return (lambda z: z >= rule.threshold) if rule.activation == "fatrelu" else (lambda z: z > 0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("format_name", ["float32", "int8"])
def test_layer_by_layer_counts_what_the_whole_model_counts(packed_of: PackedOf, variant: str, format_name: FormatName) -> None:
    packed = packed_of(variant, format_name)
    spec = packed.manifest.spec
    tally = Tally(nothing_yet(spec, "", ""))
    ffn = RecordingFfn(spec.rule, banks_of(packed), tally)
    model = whole_model(packed, ffn)
    for chunk in TEXT.chunks:
        ffn.in_first_half = chunk.in_first_half
        model.forward(step_of(chunk), KvCache(spec, slots=1, context=64))
    profile = record(packed, TEXT, quiet=True)
    assert np.array_equal(profile.fired, tally.fired)
    assert np.array_equal(profile.gate_passed, tally.gate_passed)
    assert np.array_equal(profile.first_half, tally.first_half)
    assert profile.routed.tolist() == [TEXT.tokens] * spec.n_layers
    assert (profile.tokens, profile.fingerprint, profile.corpus) == (TEXT.tokens, packed.manifest.fingerprint, TEXT.description)
    assert 0 < profile.fired.sum() < profile.fired.size * TEXT.tokens


class Watching(RecordingFfn):
    """Keeps the inputs it was given."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.seen: list[tuple[int, Tensor]] = []

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None):  # type: ignore[no-untyped-def]
        self.seen.append((layer, x))
        return super().start(layer, x, residual, routing)


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_are_those_of_the_weights_themselves(packed_of: PackedOf, variant: str) -> None:
    packed = packed_of(variant, "float32")
    spec, banks = packed.manifest.spec, banks_of(packed)
    ffn = Watching(spec.rule, banks, Tally(nothing_yet(spec, "", "")))
    passes = independent_rule(spec.rule)
    whole_model(packed, ffn).forward(step_of(TEXT.chunks[3]), KvCache(spec, slots=1, context=64))
    for layer, x in ffn.seen:
        (bank,) = banks[layer]
        gate, up = (torch.einsum("nh,th->tn", rows.decode(), x) for rows in (bank.gate, bank.up) if rows is not None)
        gate = passes(gate if bank.gate_bias is None else gate + bank.gate_bias)
        fires = gate & passes(up) if spec.rule.kind == "gated_both" else gate
        assert (ffn.tally.gate_passed[layer] == gate.sum(0).numpy()).all()
        assert (ffn.tally.fired[layer] == fires.sum(0).numpy()).all()


def test_with_relu_on_both_sides_fewer_fire_than_pass_the_gate(packed_of: PackedOf) -> None:
    profile = record(packed_of("bamboo", "float32"), TEXT, quiet=True)
    assert (profile.gate_passed >= profile.fired).all()
    assert profile.gate_passed.sum() > 1.5 * profile.fired.sum()


def test_a_neuron_that_is_never_silent_counts_as_firing(packed_of: PackedOf) -> None:
    profile = record(packed_of("silu", "float32"), TEXT, quiet=True)
    assert (profile.rate == 1.0).all()
    assert (profile.gate_rate == 1.0).all()


def test_keeping_the_layers_or_loading_them_again_is_the_same(packed_of: PackedOf, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_of("relu", "int8")
    kept = record(packed, TEXT, quiet=True)
    monkeypatch.setattr(recorder, "available_bytes", lambda device: 0)
    assert not LayerwiseModel(packed, torch.device("cpu")).keeps
    assert same(record(packed, TEXT, quiet=True), kept)


def test_a_layer_at_a_time_means_one_layer_at_a_time(packed_of: PackedOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "available_bytes", lambda device: 0)
    model = LayerwiseModel(packed_of("relu", "float32"), torch.device("cpu"))
    assert [index for index, _ in model.layers()] == [0, 1]
    assert model.kept == {}


class Interrupted:
    """Stands for `save_profile`, and presses Ctrl-C after so many blocks were saved."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def __call__(self, profile: FiringProfile, path: Path) -> None:
        save_profile(profile, path)
        self.blocks -= 1
        if self.blocks == 0:
            raise KeyboardInterrupt


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiles.pace.FIRST_TOKENS", 20)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_an_interrupted_recording_ends_like_an_uninterrupted_one(
    packed_of: PackedOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    packed, state = packed_of("bamboo", "int8"), tmp_path / "p.partial"
    whole = record(packed, TEXT, quiet=True)
    monkeypatch.setattr(recorder, "save_profile", Interrupted(blocks))
    with pytest.raises(KeyboardInterrupt, match="the same command goes on from there"):
        record(packed, TEXT, state=state, quiet=True)
    assert 0 < load_profile(state).tokens < TEXT.tokens
    assert same(record(packed, TEXT, state=state, quiet=True), whole)


@pytest.mark.usefixtures("small_blocks")
def test_a_part_is_a_profile_of_the_text_so_far(packed_of: PackedOf) -> None:
    packed = packed_of("relu", "float32")
    part = record(packed, TEXT, max_seconds=0.0, quiet=True)
    assert part.tokens == 30
    beginning = record(packed, Text(TEXT.chunks[:1], TEXT.description), quiet=True)
    assert same(part, beginning)


def test_a_finished_state_needs_no_more_work(packed_of: PackedOf, tmp_path: Path) -> None:
    packed = packed_of("relu", "float32")
    done = record(packed, TEXT, state=tmp_path / "s", quiet=True)
    assert same(record(packed, TEXT, state=tmp_path / "s", quiet=True), done)


def test_the_state_of_another_text_or_model_is_refused(packed_of: PackedOf, tmp_path: Path) -> None:
    packed, state = packed_of("relu", "float32"), tmp_path / "s"
    record(packed, TEXT, state=state, quiet=True)
    with pytest.raises(BadArtefact, match=r"interrupted recording of another text .* or remove .* to begin anew"):
        record(packed, make_text(3), state=state, quiet=True)
    with pytest.raises(WrongModel):
        record(packed_of("bamboo", "float32"), TEXT, state=state, quiet=True)


def test_ctrl_c_without_a_state_keeps_nothing(packed_of: PackedOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> FiringProfile:
        raise KeyboardInterrupt

    monkeypatch.setattr(LayerwiseModel, "count", pressed)
    with pytest.raises(KeyboardInterrupt, match="interrupted; nothing is kept"):
        record(packed_of("relu", "float32"), TEXT, quiet=True)


def test_experts_count_only_the_tokens_that_reach_them() -> None:
    random = torch.Generator().manual_seed(0)
    rule = FfnRule("gated", "relu")
    gates, ups, downs = ([Rows.encode("float32", torch.randn(6, 32, generator=random)) for _ in range(3)] for _ in range(3))
    experts = [NeuronBank(*rows) for rows in zip(gates, ups, downs, strict=True)]
    x = torch.randn(4, 32, generator=random)
    routing = torch.tensor([[0.3, 0.7, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [0.2, 0.8, 0.0]])
    zeros = np.zeros((6, 6), np.uint32)
    tally = Tally(FiringProfile(zeros, zeros, np.zeros(6, np.uint32), 0, zeros, "", "", n_experts=3))
    out = RecordingFfn(rule, {1: experts}, tally).start(1, x, x, routing).finish()
    assert tally.routed.tolist() == [0, 0, 0, 2, 4, 1]
    wanted = torch.zeros(4, 32)
    for expert, bank in enumerate(experts):
        h, _ = fire(bank, bank.up.format.input(x), rule)
        assert (tally.fired[3 + expert] == ((h != 0) & (routing[:, expert : expert + 1] > 0)).sum(0).numpy()).all()
        wanted += routing[:, expert : expert + 1] * (h @ bank.down.decode())
    assert torch.allclose(out, wanted, atol=1e-5)
    assert not tally.fired[:3].any()


def test_a_progress_bar_ends_at_its_total() -> None:
    for tokens in (0, 1, 7, 512):
        for layers in (1, 3, 32):
            assert sum(share(tokens, index, layers) for index in range(layers)) == tokens
