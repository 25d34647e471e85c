"""Activated parameters: the figures that papers and model cards print, and which reading gives which."""

from dataclasses import replace

import pytest

from models.params import Part, activity_at, every_neuron, parts_of, summed, table
from models.spec import FfnRule, ModelSpec, Predictors

MISTRAL = ModelSpec(
    family="mistral",
    n_layers=32,
    hidden=4096,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    n_neurons=14336,
    vocab=32000,
    context=32768,
    rule=FfnRule("gated_both", "relu"),
    rope=None,
)
MIXTRAL_RANKS = [896, 896, *[1024] * 11, 1088, *[1024] * 13, *[1088] * 4, 1344]  # of the released TurboSparse-Mixtral, by layer
MISTRAL_RANK = 40320 / 32  # the released TurboSparse-Mistral: what its shards hold beyond the base model


def mixtral(vocab: int = 32000) -> ModelSpec:
    return replace(MISTRAL, n_experts=8, experts_per_token=2, vocab=vocab)


def billions(spec: ModelSpec, sparsity: float, rank: float = 0.0, *, embeddings: bool) -> tuple[float, float]:
    """Total and activated."""
    whole = summed(parts_of(spec, activity_at(spec, sparsity), rank), "", embeddings=embeddings)
    return whole.total / 1e9, whole.active / 1e9


def test_the_dense_models() -> None:
    """Everything counted, both embedding matrices too."""
    assert billions(MISTRAL, 0.0, embeddings=True) == pytest.approx((7.24, 7.24), abs=0.005)
    assert billions(mixtral(), 0.0, embeddings=True) == pytest.approx((46.70, 12.88), abs=0.005)
    assert summed(parts_of(MISTRAL, every_neuron(MISTRAL)), "", embeddings=True).total == MISTRAL.parameters == 7_241_732_096


@pytest.mark.parametrize(
    ("published", "rank", "embeddings"),
    [
        pytest.param(1.906, 0.0, False, id="attention and a tenth of the FFN"),
        pytest.param(2.510, 1024, False, id="and predictors of the nominal rank: the paper's 2.5B"),
        pytest.param(2.649, MISTRAL_RANK, False, id="and the released predictors"),
        pytest.param(2.911, MISTRAL_RANK, True, id="and both embedding matrices: the paper's 3B"),
    ],
)
def test_turbosparse_mistral(published: float, rank: float, embeddings: bool) -> None:
    assert billions(MISTRAL, 0.9, rank, embeddings=embeddings)[1] == pytest.approx(published, abs=0.001)


@pytest.mark.parametrize(
    ("published", "rank", "vocab", "embeddings"),
    [
        pytest.param(3.03, 0.0, 32000, False, id="attention and 15 % of two experts: PowerInfer-2's about 3B"),
        pytest.param(4.26, 1036, 32000, False, id="and two predictors of the released ranks: the paper's 4.3B"),
        pytest.param(4.52, 1036, 32000, True, id="and both embedding matrices of the base model: the paper's 4.5B"),
        pytest.param(4.72, 1036, 57024, True, id="the same with the vocabulary as released"),
    ],
)
def test_turbosparse_mixtral(published: float, rank: float, vocab: int, embeddings: bool) -> None:
    assert sum(MIXTRAL_RANKS) / 32 == 1036
    assert billions(mixtral(vocab), 0.85, rank, embeddings=embeddings)[1] == pytest.approx(published, abs=0.005)


def test_the_released_turbosparse_mixtral_is_counted_to_the_byte() -> None:
    """Its index gives 103,592,501,248 bytes of bf16; biases and norms are few, but this is exact."""
    spec = mixtral(57024)
    total = summed(parts_of(spec, every_neuron(spec), 1036), "", embeddings=True).total
    assert 2 * total == 103_592_501_248


def test_predictors_of_the_checkpoint_are_counted_without_being_asked_for() -> None:
    spec = replace(mixtral(), predictors=Predictors(tuple(MIXTRAL_RANKS), masks=True))
    assert parts_of(spec, activity_at(spec, 0.85)) == parts_of(mixtral(), activity_at(spec, 0.85), 1036)
    assert billions(mixtral(), 0.85, 1036, embeddings=True)[0] * 1e9 == spec.parameters


def test_parts_are_the_whole_and_a_tied_head_counts_once() -> None:
    tied = replace(MISTRAL, tied_head=True, qkv_bias=True)
    parts = {part.name: part for part in parts_of(tied, every_neuron(tied))}
    assert sum(part.total for part in parts.values()) == tied.parameters
    assert parts["head"] == Part("head", 0, 0)
    assert not any(line.startswith(("head", "router", "predictor")) for line in table(list(parts.values())))
