"""A tokenizer read from GGUF gives the ids of the same tokenizer read from its tokenizer.json, whatever the text."""

import json
import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Core

from models.checkpoint.gguf import read_gguf
from models.checkpoint.gguf_tokenizer import NAMELESS, SPLITS, tokenizer_files
from models.errors import BadCheckpoint
from models.pack import packed
from models.tokenizer import Tokenizer
from tests.conftest import CheckpointOf
from tests.fuzz import Specimen, fuzz
from tests.gguf_files import Style, convert
from tests.models.test_older_tokenizer import CORPUS, TEXTS, trained

# What the published tokenizer.json of a model with each split has in these two places; as its authors wrote them.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


PUBLISHED: Mapping[str, dict[str, Any]] = {
    "gpt-2": byte_level(use_regex=True),
    "llama-bpe": sequence(split(LLAMA3), byte_level(use_regex=False)),
    "qwen2": sequence(split(QWEN2), byte_level(use_regex=False)),
    "tekken": sequence(split(TEKKEN), byte_level(use_regex=False)),
    "smollm": sequence({"type": "Digits", "individual_digits": True}, byte_level(use_regex=True)),
    "falcon": sequence(
        {"type": "Punctuation", "behavior": "Contiguous"},
        byte_level(use_regex=True),
        {"type": "Digits", "individual_digits": False},
        split("[0-9][0-9][0-9]"),
    ),
    "default": sequence(split(r"[\p{P}\$\+<=>\^~\|]+"), byte_level(use_regex=True), split(r"\p{N}+"), split("[0-9][0-9][0-9]")),
}
WHOLE, COMPOSED = {"llama-bpe", "tekken"}, {"qwen2"}
SPECIAL = ["<|begin|>", "<|end|>", "<|im_start|>"]
USER_DEFINED = "<tool_call>"


@cache
def published(pre: str) -> Core:
    """A tokenizer.json of this split, its merges learnt from the corpus; with special tokens, and one put before every text."""
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False))
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    core.add_tokens([AddedToken(USER_DEFINED, normalized=False, special=False)])
    begin = core.token_to_id(SPECIAL[0])
    core.post_processor = processors.TemplateProcessing(f"{SPECIAL[0]} $A", f"{SPECIAL[0]} $A {SPECIAL[0]} $B", [(SPECIAL[0], begin)])
    written = json.loads(core.to_str())
    written["pre_tokenizer"] = PUBLISHED[pre]
    written["model"]["ignore_merges"] = pre in WHOLE
    written["normalizer"] = {"type": "NFC"} if pre in COMPOSED else None
    return Core.from_str(json.dumps(written))


def write_bpe(path: Path, core: Core, pre: str | None, **keys: Any) -> Path:
    """As llama.cpp's converter writes one: tokens, their types, merges; ids that stand for nothing are filled up."""
    written = json.loads(core.to_str())
    vocab = {number: text for text, number in written["model"]["vocab"].items()}
    added = {token["id"]: token for token in written["added_tokens"]}
    count = max([*vocab, *added]) + 4
    tokens = [added[number]["content"] if number in added else vocab.get(number, f"[PAD{number}]") for number in range(count)]
    kinds = [
        gguf.TokenType.CONTROL if number in added and added[number]["special"]
        else gguf.TokenType.USER_DEFINED if number in added
        else gguf.TokenType.NORMAL if number in vocab else gguf.TokenType.UNUSED
        for number in range(count)
    ]  # fmt: skip
    writer = gguf.GGUFWriter(path, keys.pop("architecture", "llama"))
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in written["model"]["merges"]])
    writer.add_bos_token_id(id_of(core, SPECIAL[0]))
    writer.add_eos_token_id(id_of(core, SPECIAL[1]))
    return finish(writer, path, keys)


def id_of(core: Core, name: str) -> int:
    found = core.token_to_id(name)
    assert found is not None
    return found


def finish(writer: gguf.GGUFWriter, path: Path, keys: dict[str, Any]) -> Path:
    if "add_bos" in keys:
        writer.add_add_bos_token(keys["add_bos"])
    if "add_eos" in keys:
        writer.add_add_eos_token(keys["add_eos"])
    if "template" in keys:
        writer.add_chat_template(keys["template"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_pieces(path: Path, kind: str, **keys: Any) -> Path:
    """As llama.cpp's converter writes a SentencePiece model: its pieces, scores and types."""
    model = sentencepiece.SentencePieceProcessor(model_proto=trained(kind))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(number) for number in range(len(model))])
    writer.add_token_scores([model.get_score(number) for number in range(len(model))])
    kinds = [
        gguf.TokenType.UNKNOWN if model.is_unknown(number)
        else gguf.TokenType.CONTROL if model.is_control(number)
        else gguf.TokenType.BYTE if model.is_byte(number) else gguf.TokenType.NORMAL
        for number in range(len(model))
    ]  # fmt: skip
    writer.add_token_types(kinds)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    if "space" in keys:
        writer.add_add_space_prefix(keys["space"])
    return finish(writer, path, keys)


def read(path: Path, folder: Path) -> Tokenizer:
    """By way of the files that a packed folder gets."""
    folder.mkdir(exist_ok=True)
    for name, text in tokenizer_files(read_gguf(path).metadata, 10_000).items():
        (folder / name).write_text(text)
    return Tokenizer.open(folder)


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """A function, since hypothesis writes out what a failing test was given."""
    home = tmp_path_factory.mktemp("tokenizers")
    found = {pre: read(write_bpe(home / f"{pre}.gguf", published(pre), pre, add_bos=True), home / pre) for pre in PUBLISHED}
    found |= {kind: read(write_pieces(home / f"{kind}.gguf", kind), home / kind) for kind in ("llama", "bpe_without_bytes")}
    return lambda kind: found[kind]


MORE = [
    "<|im_start|>user\nHi<|end|> there <tool_call> {}</tool_call>", "<|begin|><|begin|>", "$1,234.56 +7 <=> ^~|`", "x²y 12½3456 м 999",
    "DON'T don't İI'LL ſ", "\r\n\r\n \n\t\n  x", "(a)[b]{c}: d; e/f//g\n", "aaaaaaaaaa" * 20,
]  # fmt: skip


@pytest.mark.parametrize("pre", PUBLISHED)
def test_byte_level_bpe_gives_the_ids_of_tokenizer_json(pre: str, tokenizer_of: Callable[[str], Tokenizer]) -> None:
    reference, tokenizer = published(pre), tokenizer_of(pre)
    for text in [*TEXTS, *MORE]:
        assert tokenizer.encode(text) == reference.encode(text).ids, text
        assert tokenizer.encode(text, special=False) == reference.encode(text, add_special_tokens=False).ids, text
        ids = reference.encode(text).ids
        assert tokenizer.decode(ids) == reference.decode(ids)
    assert tokenizer.bos == reference.token_to_id(SPECIAL[0])


@given(st.text(alphabet=st.one_of(st.sampled_from(" \u3000\n\r\t'sTL1239.,$²½éаб中"), st.characters(codec="utf-8")), max_size=24))
@settings(max_examples=100, deadline=None)
def test_any_text_at_all(tokenizer_of: Callable[[str], Tokenizer], text: str) -> None:
    for pre in PUBLISHED:
        assert tokenizer_of(pre).encode(text) == published(pre).encode(text).ids, pre
    reference = processor("llama")
    assert tokenizer_of("llama").encode(text, special=False) == reference.encode(text)


@cache
def processor(kind: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=trained(kind))


@pytest.mark.parametrize("kind", ["llama", "bpe_without_bytes"])
def test_pieces_give_the_ids_of_sentencepiece(kind: str, tokenizer_of: Callable[[str], Tokenizer]) -> None:
    for text in TEXTS:
        assert tokenizer_of(kind).encode(text, special=False) == processor(kind).encode(text), text
        assert tokenizer_of(kind).encode(text) == [1, *processor(kind).encode(text)], text


def test_a_space_is_put_first_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    tokenizer = read(write_pieces(tmp_path / "a.gguf", "no_space_first", space=False), tmp_path / "a")
    for text in TEXTS:
        assert tokenizer.encode(text, special=False) == processor("no_space_first").encode(text), text


@pytest.mark.parametrize(("pre", "add_bos", "begins"), [("llama-bpe", None, True), ("llama-bpe", False, False), ("gpt-2", None, False)])
def test_what_stands_before_a_text(pre: str, add_bos: bool | None, begins: bool, tmp_path: Path) -> None:
    """Llama 3's converters leave out what every Llama 3 does."""
    told = {} if add_bos is None else {"add_bos": add_bos}
    tokenizer = read(write_bpe(tmp_path / "a.gguf", published(pre), pre, **told), tmp_path / "a")
    assert (tokenizer.encode("a")[0] == published(pre).token_to_id(SPECIAL[0])) == begins
    assert tokenizer.encode("a", special=False) == published(pre).encode("a", add_special_tokens=False).ids


def test_the_chat_template_and_the_special_tokens_come_along(tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "a.gguf", published("qwen2"), "qwen2", template="{{ bos_token }}{{ messages[0].content }}")
    tokenizer = read(path, tmp_path / "a")
    assert tokenizer.chat_template == "{{ bos_token }}{{ messages[0].content }}"
    assert tokenizer.specials == {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1]}


@pytest.mark.parametrize("architecture", NAMELESS)
def test_powerinfers_files_are_older_than_the_names(architecture: str, tmp_path: Path) -> None:
    pre = NAMELESS[architecture]
    tokenizer = read(write_bpe(tmp_path / "a.gguf", published(pre), None, architecture=architecture, add_bos=True), tmp_path / "a")
    assert all(tokenizer.encode(text) == published(pre).encode(text).ids for text in TEXTS)


def test_every_split_is_held_to_a_published_one() -> None:
    assert {SPLITS[pre] for pre in PUBLISHED} == set(SPLITS.values())


def test_a_packed_file_carries_its_tokenizer(checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    path = convert(checkpoint_of("silu"), tmp_path / "model.gguf", "llama", Style(pre="gpt-2"))
    model, folder = packed(str(path), quiet=True), Tokenizer.open(checkpoint_of("silu"))
    tokenizer = Tokenizer.open(model.folder, model.manifest.spec.vocab)
    assert all(tokenizer.encode(text, special=False) == folder.encode(text, special=False) for text in TEXTS)


# ---------------------------------------------------------------- what is wrong is one line


def refused(path: Path, vocab: int = 10_000) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        tokenizer_files(read_gguf(path).metadata, vocab)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    core = published("gpt-2")
    assert "'tokenizer.ggml.pre': 'gpt-9' is not a split we have tested" in refused(write_bpe(tmp_path / "a.gguf", core, "gpt-9"))
    assert "'tokenizer.ggml.pre' is missing" in refused(write_bpe(tmp_path / "b.gguf", core, None))
    assert "add_eos_token" in refused(write_bpe(tmp_path / "c.gguf", core, "gpt-2", add_eos=True))
    assert "the model knows only 500" in refused(write_bpe(tmp_path / "d.gguf", core, "gpt-2"), vocab=500)


def small(path: Path, tokens: list[str], merges: list[str] | None, **more: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(more.get("kind", "gpt2"))
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    if merges is not None:
        writer.add_token_merges(merges)
    if "bos" in more:
        writer.add_bos_token_id(more["bos"])
    if "types" in more:
        writer.add_token_types(more["types"])
    return finish(writer, path, more)


def test_tokens_that_make_no_tokenizer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    assert "kind 'rwkv'" in refused(small(path, ["a"], [], kind="rwkv"))
    assert "'tokenizer.ggml.merges' is missing" in refused(small(path, ["a"], None))
    assert "does not describe a tokenizer" in refused(small(path, ["a"], ["b c"]))
    assert "'tokenizer.ggml.bos_token_id' is 7, and there are 1 tokens" in refused(small(path, ["a"], [], bos=7))
    assert "has no 'tokenizer.ggml.bos_token_id'" in refused(small(path, ["a"], [], add_bos=True))
    assert "1 tokens, 1 scores of them and 2 types" in refused(small(path, ["a"], [], types=[1, 1]))
    assert "pieces too long" in refused(small(path, ["a" * 100_000], [], kind="llama"))
    assert tokenizer_files(read_gguf(gguf_without_tokenizer(path)).metadata, 5) == {}


def gguf_without_tokenizer(path: Path) -> Path:
    return finish(gguf.GGUFWriter(path, "llama"), path, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "pieces"])
def test_fuzzed_tokenizers(kind: str, tmp_path: Path) -> None:
    fuzz_tokenizer(kind, tmp_path, range(2000))


@pytest.mark.parametrize("kind", ["bpe", "pieces"])
def test_a_few_fuzzed_tokenizers(kind: str, tmp_path: Path) -> None:
    fuzz_tokenizer(kind, tmp_path, range(random.Random(kind).randrange(10**6), 10**9)[:60])


def fuzz_tokenizer(kind: str, tmp_path: Path, cases: range) -> None:
    path = tmp_path / "good.gguf"
    good = write_bpe(path, published("qwen2"), "qwen2") if kind == "bpe" else write_pieces(path, "llama")
    data, bad = good.read_bytes(), tmp_path / "bad.gguf"
    tally = fuzz([Specimen(data, len(data))], bad, lambda: tokenizer_files(read_gguf(bad).metadata, 10_000), cases)
    assert tally.read
    assert tally.refused
