"""The model that ships: it is what its card says, and Hugging Face's implementation agrees with ours on it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import cpu_ops
from models.architectures import read_spec
from models.checkpoint.safetensors import open_safetensors
from models.packed import PackedModel
from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from profiles.firing import load_profile
from profiles.shelf import BUNDLED_PROFILE
from tests.conftest import PackedOf
from tests.models.running import Part, cache_for, dense, run_step

PROMPT = "import os\nimport sys\n\n\ndef main(argv):\n    "


@pytest.fixture
def packed(packed_of: PackedOf) -> PackedModel:
    return packed_of("bundled", "float32")


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((BUNDLED_MODEL / "training.json").read_text())
    return loaded


def test_its_shape_is_the_one_that_was_asked_for(facts: dict[str, Any]) -> None:
    spec = read_spec(BUNDLED_MODEL)
    assert (spec.rule.kind, spec.rule.activation) == ("gated", "relu")
    assert spec.n_layers >= 6
    assert spec.n_neurons >= 1024
    assert 1024 <= spec.context <= facts["shape"]["context"]
    assert spec.parameters == facts["parameters"]
    assert sum(path.stat().st_size for path in BUNDLED_MODEL.iterdir() if path.is_file()) < 20_000_000


def test_logits_are_those_of_transformers(packed: PackedModel) -> None:
    tokens = Tokenizer.open(BUNDLED_MODEL).encode(PROMPT)
    theirs = LlamaForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = theirs(torch.tensor([tokens])).logits[0]
    model = dense(packed, cpu_ops)
    (got,) = run_step(model, cache_for(model), [Part(0, 0, tokens)])
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_it_was_never_shown_what_it_is_judged_on() -> None:
    lines = [line.split() for line in (BUNDLED_MODEL / "corpus.sha256").read_text().splitlines() if not line.startswith("#")]
    parts = {name: part for _, part, name in lines}
    held_out = set((BUNDLED_MODEL / "held_out.txt").read_text().split())
    assert held_out == {name for name, part in parts.items() if part == "held-out"}
    assert 0.04 <= len(held_out) / len(parts) <= 0.07
    assert not any("test" in Path(name).parts or "tests" in Path(name).parts for name in parts)


def test_it_beats_the_compressors_and_is_sparse(facts: dict[str, Any]) -> None:
    assert facts["held_out_bits_per_byte"] < facts["held_out_bits_per_byte_xz_9"] < facts["held_out_bits_per_byte_gzip_9"]
    assert min(facts["held_out_sparsity"]) >= 0.8


def test_its_profile_is_of_these_weights() -> None:
    profile = load_profile(BUNDLED_PROFILE, open_safetensors(BUNDLED_MODEL).fingerprint)
    assert profile.fired.shape == (6, 1024)
    assert profile.tokens >= 100_000
    assert profile.sparsity.min() >= 0.8


def test_its_card_says_what_was_measured(facts: dict[str, Any]) -> None:
    card = (BUNDLED_MODEL / "README.md").read_text()
    profile = load_profile(BUNDLED_PROFILE)
    figures = [
        f"{facts['parameters']:,}",
        f"{facts['tokens_seen']:,}",
        *(f"{facts[f'held_out_bits_per_byte{peer}']:.2f}" for peer in ("", "_gzip_9", "_xz_9")),
        *(f"{100 * share:.1f} %" for share in facts["held_out_sparsity"]),
        *(f"{100 * share:.1f} %" for share in profile.skew()),
    ]
    assert [figure for figure in figures if figure not in card] == []


def test_the_chat_template_is_there_for_chat_clients() -> None:
    template = Tokenizer.open(BUNDLED_MODEL).chat_template
    assert template is not None
    assert "messages" in template
