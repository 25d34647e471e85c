"""Text to ids and back, and text that grows a token at a time."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Core

from models.errors import BadCheckpoint
from models.tokenizer import IncrementalDecoder, Tokenizer


def byte_core() -> Core:
    """One token per byte, and two that are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Core(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    return core


def folder_with(tmp_path: Path, settings: dict[str, object] | None) -> Path:
    byte_core().save(str(tmp_path / "tokenizer.json"))
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


BYTES = Tokenizer(byte_core(), None, None)


def known(piece: str) -> int:
    token = BYTES.core.token_to_id(piece)
    assert token is not None
    return token


def test_bos_comes_first_where_the_model_wants_it(tmp_path: Path) -> None:
    settings = {"add_bos_token": True, "bos_token": {"content": "<s>"}, "chat_template": "{{ messages }}"}
    tokenizer = Tokenizer.open(folder_with(tmp_path, settings))
    assert tokenizer.encode("a")[0] == tokenizer.core.token_to_id("<s>")
    assert tokenizer.encode("a", special=False) == tokenizer.encode("a")[1:]
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.vocab_size == 258


def test_without_settings_nothing_is_put_first(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(folder_with(tmp_path, None))
    assert tokenizer.decode(tokenizer.encode("naïve 🐍")) == "naïve 🐍"
    assert len(tokenizer.encode("a")) == 1


@pytest.mark.parametrize("damage", ["not json", "{}", "[]"])
def test_a_broken_tokenizer_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"no tokenizer\.json"):
        Tokenizer.open(tmp_path)


@given(st.text(max_size=40))
def test_text_grows_to_what_decode_gives(text: str) -> None:
    ids = BYTES.encode(text)
    growing = IncrementalDecoder(BYTES)
    pieces = [growing.push(token) for token in ids]
    assert "".join([*pieces, growing.finish()]) == BYTES.decode(ids) == text


@given(st.text(alphabet="é🐍中a", min_size=1, max_size=12))
def test_no_half_of_a_character_is_given(text: str) -> None:
    growing = IncrementalDecoder(BYTES)
    assert all("\ufffd" not in growing.push(token) for token in BYTES.encode(text))


@given(st.binary(max_size=24))
def test_bytes_that_are_no_text_are_not_lost(data: bytes) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = [known(alphabet[byte]) for byte in data]
    growing = IncrementalDecoder(BYTES)
    assert "".join([*map(growing.push, ids), growing.finish()]) == BYTES.decode(ids)


def test_a_special_token_shows_in_a_table_but_not_in_the_text() -> None:
    end = known("</s>")
    assert BYTES.piece(end) == "</s>"
    assert BYTES.decode([end]) == ""


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, None)
    assert Tokenizer.open(folder, 258).vocab_size == 258
    with pytest.raises(BadCheckpoint, match="ids up to 255, but the model knows only 200 tokens"):
        Tokenizer.open(folder, 200)


def test_a_special_token_that_the_model_has_no_row_for_is_text_like_any_other(tmp_path: Path) -> None:
    """As a pad that was added when the model was tuned; its name in a text would look past the end of the embedding."""
    core = byte_core()
    core.add_special_tokens(["<pad>"])
    core.save(str(tmp_path / "tokenizer.json"))
    whole, fitting = Tokenizer.open(tmp_path), Tokenizer.open(tmp_path, 258)
    assert whole.encode("a<pad></s>")[1] == 258
    assert fitting.encode("a</s>") == whole.encode("a</s>")
    assert max(fitting.encode("a<pad>b")) < 258
    assert fitting.decode(fitting.encode("a<pad>b")) == "a<pad>b"


def test_a_token_of_text_or_one_put_around_every_text_must_have_a_row(tmp_path: Path) -> None:
    core = byte_core()
    core.add_tokens([AddedToken("word", special=False)])
    core.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadCheckpoint, match="ids up to 258, but the model knows only 258"):
        Tokenizer.open(tmp_path, 258)
    core = byte_core()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    core.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadCheckpoint, match="ids up to 256, but the model knows only 256"):
        Tokenizer.open(tmp_path, 256)
