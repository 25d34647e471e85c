"""Tokenizers of older repositories give the ids of the programs they were made with: SentencePiece itself, and transformers."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Core
from tokenizers import models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, LlamaTokenizer, Qwen2Tokenizer

from models.errors import BadCheckpoint
from models.older_tokenizer import read_older
from models.pack import packed
from models.tokenizer import Tokenizer
from tests.checkpoints import make_llama
from tests.fuzz import Specimen, fuzz

CORPUS = [
    "The neurons that fire together are kept together on the card, the others there; 3.14159 and 2,718 of them.",
    "Нейроны, которые возбуждаются вместе, хранятся вместе. Быстрая бурая лиса перепрыгивает через ленивую собаку.",
    "一緒に発火するニューロンは一緒に保たれます。神经元一起放电。 뉴런은 함께 발화한다",
    "العصبونات التي تنشط معا تبقى معا. הנוירונים שיורים יחד נשמרים יחד. νευρώνες που πυροδοτούν μαζί",
    "def decode(ids):\n    return ''.join(piece(i) for i in ids)  # tabs\tand   spaces\n",
    "naïve café Zürich façade œuvre İstanbul ﬁne ① ½ Ａ",
]
TEXTS = [
    *CORPUS,
    "",
    " ",
    "   ",
    "hello",
    " hello",
    "  two before, two after  ",
    "a\u00a0b\u2003c\u3000d\u200be",
    "tab\tand\nline\r\nends\x0b\x0c\x85\u2028",
    "\x00\x01\x07\x1b[0m\x7f",
    "👩‍👩‍👧‍👦 🐍🇩🇪 ❤️ \U0001f9ff",
    "e\u0301 vs \u00e9, \u1e9b\u0323",
    "ไทย हिन्दी தமிழ் አማርኛ ᚠᚢᚦ \U00012000",
    "0123456789 1,000,000 ١٢٣",
    "it's we'LL I'd  don't",
    "▁ ▁▁underline▁",
    "\ud7ff\ue000\ufffd\uffff\U0010ffff",
]
KINDS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "bpe_without_bytes": {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "bpe_normalised": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "unigram": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "unigram_normalised": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "no_space_first": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
}


@cache
def trained(kind: str) -> bytes:
    """A model of 700 pieces over the corpus."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=written,
        vocab_size=700 if KINDS[kind]["model_type"] == "bpe" else 480,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
        num_threads=1,
        **KINDS[kind],
    )
    return written.getvalue()


def write_pieces(folder: Path, kind: str, **told: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(trained(kind))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"} | told))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentencepiece_model_gives_the_ids_of_sentencepiece(kind: str, tmp_path: Path) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_proto=trained(kind))
    tokenizer = Tokenizer.open(write_pieces(tmp_path, kind))
    for text in TEXTS:
        if "normalised" in kind:
            text = text.replace("\u1e9b\u0323", "")  # `tokenizers` normalises what composes as one, SentencePiece by its longest match
        assert tokenizer.encode(text, special=False) == reference.encode(text), text
        assert tokenizer.encode(text) == [1, *reference.encode(text)]


@given(st.text(alphabet=st.one_of(st.sampled_from(" \u3000\u2581\nabeént.1"), st.characters(codec="utf-8")), max_size=24))
@settings(max_examples=300, deadline=None)
def test_any_text_at_all(text: str) -> None:
    for kind in ("llama", "unigram"):
        assert core_of(kind).encode(text, add_special_tokens=False).ids == processor_of(kind).encode(text)


@cache
def processor_of(kind: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=trained(kind))


@pytest.fixture(scope="module", autouse=True)
def _cores(tmp_path_factory: pytest.TempPathFactory) -> None:
    for kind in ("llama", "unigram"):
        found = read_older(write_pieces(tmp_path_factory.mktemp(kind), kind))
        assert found is not None
        CORES[kind] = found


CORES: dict[str, Core] = {}


def core_of(kind: str) -> Core:
    return CORES[kind]


@pytest.mark.parametrize("legacy", [True, False])
def test_a_sentencepiece_model_gives_the_ids_of_transformers(legacy: bool, tmp_path: Path) -> None:
    """With `legacy`, transformers 5 puts no space before a text that begins with one, or with ▁; SentencePiece does, and so do we."""
    folder = write_pieces(tmp_path, "llama", legacy=legacy, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True)
    reference, tokenizer = LlamaTokenizer.from_pretrained(folder), Tokenizer.open(folder)
    for text in TEXTS:
        if text and not (legacy and text.startswith((" ", "▁"))):
            assert tokenizer.encode(text) == reference.encode(text), text
            assert tokenizer.decode(tokenizer.encode(text)) == reference.decode(reference.encode(text), skip_special_tokens=True)
    assert tokenizer.encode("a<s>b</s>") == reference.encode("a<s>b</s>")


def write_merges(folder: Path, kind: str, **told: object) -> Path:
    """A byte-level BPE of 600 pieces over the corpus, as `vocab.json` and `merges.txt`."""
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "</s>", "<|endoftext|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(
        CORPUS * 3, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    )
    folder.mkdir(parents=True, exist_ok=True)
    core.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | told))
    return folder


@pytest.mark.parametrize("add_prefix_space", [True, False])
def test_vocab_and_merges_as_opt_has_them(add_prefix_space: bool, tmp_path: Path) -> None:
    told = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_prefix_space": add_prefix_space}
    folder = write_merges(tmp_path, "GPT2Tokenizer", add_bos_token=True, **told)
    reference, tokenizer = GPT2Tokenizer.from_pretrained(folder), Tokenizer.open(folder)
    for text in [*TEXTS, "one</s>two <pad>"]:
        assert tokenizer.encode(text, special=False) == reference.encode(text, add_special_tokens=False), text
        assert tokenizer.encode(text)[0] == tokenizer.core.token_to_id("</s>")
        assert tokenizer.decode(tokenizer.encode(text)) == reference.decode(reference.encode(text), skip_special_tokens=True)


def test_vocab_and_merges_as_qwen2_has_them(tmp_path: Path) -> None:
    added = {"600": {"content": "<|im_start|>", "special": True}, "601": {"content": "<tool>", "special": False}}
    folder = write_merges(tmp_path, "Qwen2Tokenizer", added_tokens_decoder=added, pad_token="<|endoftext|>", eos_token="<|im_start|>")
    reference, tokenizer = Qwen2Tokenizer.from_pretrained(folder), Tokenizer.open(folder)
    for text in [*TEXTS, "<|im_start|>user\nhi<tool> x", "é e\u0301<|endoftext|>"]:
        assert tokenizer.encode(text) == reference.encode(text), text
    assert tokenizer.encode("<|im_start|><tool>") == [600, 601]


def test_added_tokens_have_the_ids_they_are_given(tmp_path: Path) -> None:
    folder = write_pieces(tmp_path, "llama")
    size = len(sentencepiece.SentencePieceProcessor(model_proto=trained("llama")))
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size + 1, "<|im_start|>": size}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<|im_end|>"], "pad_token": "<nowhere>"}))
    tokenizer = Tokenizer.open(folder)
    assert tokenizer.encode("<|im_start|><|im_end|>")[1:] == [size, size + 1]
    assert tokenizer.decode([size, size + 1]) == "<|im_start|>"  # the other is special
    assert tokenizer.vocab_size == size + 2
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size + 5}))
    with pytest.raises(BadCheckpoint, match=f"the id {size + 5}, where the vocabulary has {size}"):
        Tokenizer.open(folder)


def test_without_a_word_on_it_llamas_begin_is_put_first_and_with_one_it_is_not(tmp_path: Path) -> None:
    assert Tokenizer.open(write_pieces(tmp_path, "llama")).encode("a")[0] == 1
    assert Tokenizer.open(write_pieces(tmp_path, "llama", add_bos_token=False)).encode("a")[0] != 1


EMPTY_BPE = {"vocab.json": b"{}", "merges.txt": b""}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, r"has no tokenizer\.json, no tokenizer\.model, and no vocab\.json with merges\.txt"),
        ({"tokenizer.model": b"\xff\xff not a model"}, "is not a SentencePiece model"),
        ({"tokenizer.model": b""}, "of a kind that has not been tested"),
        (EMPTY_BPE | {"vocab.json": b"["}, "does not describe a tokenizer"),
        (EMPTY_BPE | {"merges.txt": b"#version: 0.2\na b\n"}, "does not describe a tokenizer"),
        (EMPTY_BPE | {"tokenizer_config.json": b'{"tokenizer_class": "Odd\\nOne"}'}, "has not been tested; tested: GPT2"),
        (EMPTY_BPE | {"tokenizer_config.json": b"[]"}, "is not a JSON object"),
        (EMPTY_BPE | {"config.json": b'{"model_type": "gpt2"}', "added_tokens.json": b'{"a": []}'}, "does not describe"),
    ],
)
def test_what_cannot_be_read_is_one_line(files: dict[str, bytes], complaint: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadCheckpoint, match=complaint) as caught:
        Tokenizer.open(tmp_path)
    assert str(caught.value).isprintable()


def test_hostile_vocabularies(tmp_path: Path) -> None:
    path = write_pieces(tmp_path, "llama") / "tokenizer.model"
    data = path.read_bytes()
    tally = fuzz([Specimen(data, len(data))], path, lambda: read_older(tmp_path), range(200))
    assert tally.refused > 20
    assert tally.read > 5


def test_packing_carries_it_as_tokenizer_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    folder = make_llama(tmp_path / "old", {"vocab_size": 800})
    (folder / "tokenizer.json").unlink()
    before = Tokenizer.open(write_pieces(folder, "llama"))
    after = Tokenizer.open(packed(str(folder), "int8", quiet=True).folder)
    assert [after.encode(text) for text in TEXTS] == [before.encode(text) for text in TEXTS]
    (folder / "tokenizer.model").write_bytes(b"\xff")
    with pytest.raises(BadCheckpoint, match="is not a SentencePiece model"):
        packed(str(folder), "bf16", quiet=True)
