"""A synthetic model that `server run` takes: every token a word, the firing as it was planted, nothing written twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import served as made
from benchmarks.serving import sentences
from benchmarks.shapes import SHAPES, TINY_LLAMA
from benchmarks.synthetic import build
from models.packed import PackedModel
from models.spec import FfnRule
from models.tokenizer import IncrementalDecoder, Tokenizer
from profiles.shelf import profile_of

SMALL = replace(TINY_LLAMA, n_layers=2, hidden=256, n_heads=4, n_kv_heads=1, n_neurons=128, vocab=500)


def test_the_profile_of_two_rectifiers_has_gates_that_pass_in_vain(tmp_path: Path) -> None:
    both = replace(SMALL, rule=FfnRule("gated_both", "relu"))
    profile = made.flat_profile(build("both", both, tmp_path).manifest)
    assert profile.rate.mean() == pytest.approx(0.1)
    assert (profile.gate_passed == 3 * profile.fired).all()


def test_it_is_whole_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(SHAPES, "small", SMALL)
    folder = made.served("small", tmp_path)
    model, tokenizer = PackedModel.open(folder), Tokenizer.open(folder, SMALL.vocab)
    profile = profile_of(model.manifest)
    assert profile is not None
    assert profile.rate.mean() == pytest.approx(0.1)
    assert len(model.load_banks(1, None, [0])) == 1
    assert (folder / "layer-0000.bin").samefile(tmp_path / "synthetic-small" / "layer-0001.bin")
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert made.served("small", tmp_path) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    every = list(range(SMALL.vocab))
    decoder = IncrementalDecoder(tokenizer)
    assert all(decoder.push(token) for token in every)  # every token is an event of a stream
    assert tokenizer.encode(tokenizer.decode(every)) == every
    prompts = sentences(SMALL.vocab)
    assert [len(tokenizer.encode(next(prompts))) for _ in range(3)] == [64] * 3
