"""Hostile GGUF files: damaged headers, truncations, tensors that overlap or lie outside, all end in one clear error."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.checkpoint.gguf import read_gguf
from models.checkpoint.gguf_source import open_gguf
from models.errors import BadCheckpoint
from tests.checkpoints import make_llama, make_pretrained
from tests.families import QWEN_EXPERTS, TRANSFORMERS
from tests.fuzz import Specimen, fuzz
from tests.gguf_files import Raw, Style, convert, tensor_info

SOME, MANY = range(600), range(600, 20_800)
TINY = {"vocab_size": 290, "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1}
GROUPED = TINY | {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}


def specimen_of(path: Path) -> Specimen:
    """Its header is what comes before the first tensor's bytes."""
    return Specimen(path.read_bytes(), min(tensor.offset for tensor in read_gguf(path).tensors.values()))


def whole_models(folder: Path) -> list[Specimen]:
    """With and without a tokenizer, quantised, of experts, of PowerInfer with predictors."""
    llama, grouped = make_llama(folder / "llama", TINY), make_llama(folder / "grouped", GROUPED)
    model, config = TRANSFORMERS["qwen3_moe"]
    experts = make_pretrained(folder / "experts", model, config | TINY | QWEN_EXPERTS | {"num_experts": 3, "head_dim": 4})
    paths = [
        convert(llama, folder / "plain.gguf", "llama"),
        convert(llama, folder / "told.gguf", "llama", Style("F16", pre="gpt-2")),
        convert(grouped, folder / "q8.gguf", "llama", Style("Q8_0")),
        convert(grouped, folder / "q4.gguf", "llama", Style("Q4_0", powerinfer=True, ranks=(32,), threshold=0.5)),
        convert(experts, folder / "experts.gguf", "qwen3moe"),
    ]
    return [specimen_of(path) for path in paths]


def read_everything(path: Path) -> None:
    """All that packing would ask of it: spec, tokenizer, every byte of every tensor, and rows as they are."""
    checkpoint = open_gguf(path)
    checkpoint.texts()
    for name in checkpoint.source.names():
        checkpoint.source.read(name)
    if checkpoint.spec.hidden % 32 == 0:
        checkpoint.rows("layers.0.q", "int8", 0, 4), checkpoint.columns("layers.0.experts.0.down", "int8", 0, 4)


def check(folder: Path, cases: range) -> None:
    path = folder / "bad.gguf"
    tally = fuzz(whole_models(folder), path, lambda: read_everything(path), cases)
    assert tally.refused > len(cases) // 4
    assert tally.read > len(cases) // 50  # damage to a weight, or to a number that means nothing here


def test_whole_models(tmp_path: Path) -> None:
    check(tmp_path, SOME)


@pytest.mark.slow
def test_whole_models_at_length(tmp_path: Path) -> None:
    check(tmp_path, MANY)


def test_one_shard_of_several(tmp_path: Path) -> None:
    """The others are in order."""
    convert(make_llama(tmp_path / "llama", TINY), tmp_path / "model.gguf", "llama", Style(shard_tensors=9))
    first, *_ = sorted(tmp_path.glob("model-*.gguf"))
    specimen = specimen_of(first)
    tally = fuzz([specimen], first, lambda: read_everything(first), range(300))
    assert tally.refused > tally.read


def test_a_shard_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    convert(make_llama(tmp_path / "llama", TINY), tmp_path / "model.gguf", "llama", Style(shard_tensors=9))
    first, second, *_ = sorted(tmp_path.glob("model-*.gguf"))
    second.unlink()
    second.mkdir()
    with pytest.raises(BadCheckpoint, match=second.name):
        open_gguf(first)


def test_a_file_cut_after_it_was_opened_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = convert(make_llama(tmp_path / "llama", TINY), tmp_path / "model.gguf", "llama", Style(pre="gpt-2"))
    checkpoint = open_gguf(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadCheckpoint):
        checkpoint.read("layers.1.experts.0.down")
    with pytest.raises(BadCheckpoint):
        checkpoint.texts()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 12)), min_size=2, max_size=6))
def test_tensors_may_lie_anywhere_but_in_each_other(tmp_path: Path, places: list[tuple[int, int]]) -> None:
    """(offset, length) in units of the alignment, which is a F32 row of 8."""
    infos = [tensor_info(f"t{number}", [8 * count], offset=32 * at) for number, (at, count) in enumerate(places)]
    path = Raw(tensors=infos, data=bytes(32 * 21)).write(tmp_path / "a.gguf")
    spans = sorted((at, at + count) for at, count in places)
    if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
        with pytest.raises(BadCheckpoint, match="share bytes"):
            read_gguf(path)
    else:
        assert len(read_gguf(path).tensors) == len(places)
