"""Tokenizers of older repositories, made into what `tokenizer.json` would be: `tokenizer.model`, or `vocab.json` with `merges.txt`.

What a repository's files do not say is taken from its tokenizer's class, and a class nobody has tested is refused by name.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as sentencepiece
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from models.errors import BadCheckpoint
from models.foreign_json import MOST_BYTES, read_json
from models.pieces import Pieces, build

PIECES, VOCAB, MERGES = "tokenizer.model", "vocab.json", "merges.txt"
SETTINGS, SPECIALS, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MOST_SAID = 200  # characters of an error that is not ours
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Qwen2's own split of a text before BPE: contractions, words, single digits, punctuation, line ends, spaces.
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def read_older(folder: Path) -> tokenizers.Tokenizer | None:
    """The tokenizer that a folder without tokenizer.json has, or None; BadCheckpoint says what is wrong with it."""
    if (folder / PIECES).is_file():
        return _checked(folder / PIECES, lambda: _with_added(read_pieces_model(folder), folder))
    if (folder / VOCAB).is_file() and (folder / MERGES).is_file():
        return _checked(folder / VOCAB, lambda: _with_added(read_merges(folder), folder))
    return None


def _checked(path: Path, read: Callable[[], tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    try:
        return read()
    except BadCheckpoint:
        raise
    except Exception as error:  # the library raises bare Exception
        said = "".join(letter for letter in " ".join(str(error).split()) if letter.isprintable())
        raise BadCheckpoint(path, f"does not describe a tokenizer: {said[:MOST_SAID]}") from None


def read_pieces_model(folder: Path) -> tokenizers.Tokenizer:
    """`tokenizer.model`. What stands before a text is LLaMA's: <s>, unless tokenizer_config.json says otherwise."""
    path = folder / PIECES
    model = sentencepiece.ModelProto()
    try:
        model.ParseFromString(_read_bytes(path))
    except DecodeError:
        raise BadCheckpoint(path, "is not a SentencePiece model") from None
    kinds = sentencepiece.TrainerSpec
    kind = model.trainer_spec.model_type
    if kind not in (kinds.BPE, kinds.UNIGRAM) or not model.pieces or model.trainer_spec.treat_whitespace_as_suffix:
        raise BadCheckpoint(path, "is a SentencePiece model of a kind that has not been tested; tested: bpe, unigram")
    settings = read_json(folder / SETTINGS)
    pieces = Pieces(
        texts=[piece.piece for piece in model.pieces],
        scores=[piece.score for piece in model.pieces],
        kinds=[piece.type for piece in model.pieces],
        unigram=kind == kinds.UNIGRAM,
        space_first=model.normalizer_spec.add_dummy_prefix,
        once=settings.get("legacy") is False,
        squeezes=model.normalizer_spec.remove_extra_whitespaces,
        charsmap=model.normalizer_spec.precompiled_charsmap,
    )
    begin = model.trainer_spec.bos_id
    adds = settings.get("add_bos_token", True) and 0 <= begin < len(pieces.texts)
    return build(pieces, bos=begin if adds else None)


def read_merges(folder: Path) -> tokenizers.Tokenizer:
    """`vocab.json` and `merges.txt`: byte-level BPE, split as GPT-2 (and OPT) or Qwen2 split a text."""
    for name in (VOCAB, MERGES):
        _read_bytes(folder / name)  # only for its size
    core = tokenizers.Tokenizer(models.BPE.from_file(str(folder / VOCAB), str(folder / MERGES)))
    core.decoder = decoders.ByteLevel()
    settings = read_json(folder / SETTINGS)
    prefix = settings.get("add_prefix_space") is True
    match tokenizer_class(folder, settings):
        case "GPT2Tokenizer":
            core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        case "Qwen2Tokenizer":
            core.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
            core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)])
    return core


OF_MODEL_TYPE = {
    "opt": "GPT2Tokenizer",
    "gpt2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
}


def tokenizer_class(folder: Path, settings: Mapping[str, Any]) -> str:
    """As tokenizer_config.json names it, else as config.json's family has it; BadCheckpoint for one that has not been tested."""
    named = settings.get("tokenizer_class")
    if named is None:
        named = OF_MODEL_TYPE.get(str(read_json(folder / "config.json").get("model_type")))
    found = str(named).removesuffix("Fast")
    if found not in OF_MODEL_TYPE.values():
        tested = ", ".join(sorted(set(OF_MODEL_TYPE.values())))
        raise BadCheckpoint(folder / SETTINGS, f"tokenizer_class {found[:MOST_SAID]!r} has not been tested; tested: {tested}")
    return found


def _with_added(core: tokenizers.Tokenizer, folder: Path) -> tokenizers.Tokenizer:
    """The tokens that a repository adds to its vocabulary, under the ids it gives them, and those that are special in it."""
    special = set(special_tokens(folder))
    for number, token in sorted(added_tokens(folder, special).items()):
        core.add_tokens([token])
        if (found := core.token_to_id(token.content)) != number:
            raise BadCheckpoint(folder, f"gives its token {token.content!r} the id {number}, where the vocabulary has {found}")
    known = sorted(name for name in special if core.token_to_id(name) is not None)
    core.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in known])
    return core


def special_tokens(folder: Path) -> Iterator[str]:
    """What special_tokens_map.json and tokenizer_config.json name as begin, end, unknown, padding, or else special."""
    for settings in (read_json(folder / SPECIALS), read_json(folder / SETTINGS)):
        for token in (*(settings.get(role) for role in ROLES), *(settings.get("additional_special_tokens") or ())):
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str) and content:
                yield content


def added_tokens(folder: Path, special: set[str]) -> dict[int, AddedToken]:
    """By id, from added_tokens.json, and from tokenizer_config.json, which says more and counts."""
    plain = read_json(folder / ADDED).items()
    found = {int(number): AddedToken(name, normalized=False, special=name in special) for name, number in plain}
    for number, told in (read_json(folder / SETTINGS).get("added_tokens_decoder") or {}).items():
        flags = {flag: told.get(flag) is True for flag in ("special", "lstrip", "rstrip", "single_word", "normalized")}
        found[int(number)] = AddedToken(str(told["content"]), **flags)
    return found


def _read_bytes(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise BadCheckpoint(path, f"is larger than {MOST_BYTES} bytes")
    return path.read_bytes()
