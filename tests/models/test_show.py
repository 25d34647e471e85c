"""A model in words, held to the spec and to the bytes that packing counts."""

from dataclasses import replace

import pytest

from models.architectures import manifest_from_folder
from models.bits import FORMAT_NAMES
from models.params import activity_at
from models.selection import modes, silence
from models.show import shown
from models.spec import FfnRule
from models.units import format_bytes
from tests.conftest import CheckpointOf, PackedOf
from tests.models.test_params import MISTRAL


def test_bytes_shown_are_the_bytes_packed(checkpoint_of: CheckpointOf, packed_of: PackedOf) -> None:
    said = "\n".join(shown(manifest_from_folder(checkpoint_of("relu"), "bf16"), None, predictors=False, packed=False))
    (line,) = [line for line in said.splitlines() if line.startswith("neurons")]
    assert line.removeprefix("neurons").split("  ")[-1].strip()
    for name in FORMAT_NAMES:
        manifest = packed_of("relu", name).manifest
        assert format_bytes(manifest.neurons_bytes) in line
        (own,) = [line for line in shown(manifest, None, predictors=False, packed=True) if line.startswith("in all")]
        assert own.split(maxsplit=2)[2] == format_bytes(manifest.spine_bytes + manifest.neurons_bytes)


def test_what_is_missing_is_said_and_what_is_there_is_not(packed_of: PackedOf) -> None:
    manifest = packed_of("relu", "bf16").manifest
    bare = "\n".join(shown(manifest.model_copy(update={"assumed": True}), None, predictors=False, packed=False))
    for what in ("missing: weights", "missing: a profile", "missing: predictors", "selection exact"):
        assert what in bare
    assert "selection predictor" not in bare
    known = "\n".join(shown(manifest, activity_at(manifest.spec, 0.75), predictors=True, packed=True))
    assert "missing" not in known
    assert "25.0% of the neurons" in known
    assert "selection predictor" in known


def test_a_format_that_does_not_fit_has_no_column(packed_of: PackedOf) -> None:
    manifest = packed_of("relu", "bf16").manifest
    odd = manifest.model_copy(update={"spec": replace(manifest.spec, hidden=80, n_heads=5, n_kv_heads=5, head_dim=16)})
    (header,) = [line for line in shown(odd, None, predictors=False, packed=False) if line.startswith("bytes")]
    assert header.split() == ["bytes", "float32", "bf16"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (FfnRule("gated", "relu"), "where its row of gate gives a number not above zero"),
        (FfnRule("gated", "fatrelu", 0.01), "where its row of gate gives a number under 0.01"),
        (FfnRule("gated_both", "relu"), "where its row of gate, or of up, gives a number not above zero"),
        (FfnRule("plain", "relu"), "where its row of up gives a number not above zero"),
        (FfnRule("gated", "silu"), "SiLU is never exactly zero"),
    ],
)
def test_what_silences_a_neuron(rule: FfnRule, words: str) -> None:
    assert words in silence(rule)
    assert ("skips" in modes(replace(MISTRAL, rule=rule), predictors=False)["exact"]) == rule.is_sparse


def test_experts_windows_and_learned_positions_are_told(packed_of: PackedOf) -> None:
    spec = replace(MISTRAL, n_experts=8, experts_per_token=2, sliding_window=4096)
    manifest = packed_of("relu", "bf16").manifest.model_copy(update={"spec": spec})
    said = "\n".join(shown(manifest, None, predictors=False, packed=True))
    for words in ("8 experts of 14,336 neurons", "2 of 8 experts", "seeing 4,096 back", "32 heads of 128 on 8 of keys", "46.70 B"):
        assert words in said


@pytest.mark.parametrize("name", ["opt", "falcon_7b", "turbosparse_mixtral", "turbosparse_mistral", "smallthinker"])
def test_every_byte_of_a_packed_model_is_in_a_row(name: str, packed_of: PackedOf) -> None:
    """Of every kind of model: with learned positions, with predictors, with experts."""
    model = packed_of(name, "bf16")
    lines = list(shown(model.manifest, None, predictors=False, packed=True))
    (all_of_it,) = [line for line in lines if line.startswith("in all")]
    stored = sum(tensor.nbytes for tensor in model.manifest.spine.values()) + model.manifest.neurons_bytes
    assert all_of_it.removeprefix("in all").strip() == format_bytes(stored)
    assert any(line.startswith("predictors") for line in lines) == (model.manifest.spec.predictors is not None)


def test_a_mask_is_no_selection_and_nothing_is_missing_for_it(packed_of: PackedOf) -> None:
    said = "\n".join(shown(packed_of("turbosparse_mixtral", "bf16").manifest, None, predictors=False, packed=True))
    assert "that mask is part of the model" in said
    assert "missing: predictors" not in said
    assert "selection predictor" not in said
