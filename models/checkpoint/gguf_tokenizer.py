"""The tokenizer in a GGUF file, as the files that Hugging Face folders keep theirs in.

Two kinds: `llama`, a SentencePiece vocabulary of pieces with scores, and `gpt2`, byte-level BPE with merges, whose split of a
text before it is told by a name, `tokenizer.ggml.pre`. What stands for a name is what the tokenizer.json has that its converter
took the name from; a name we have not tested is refused, since another split gives other ids in silence.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from models.checkpoint.gguf_metadata import Metadata
from models.errors import BadCheckpoint
from models.pieces import Kind, Pieces, build

AT = "tokenizer.ggml"
MOST_WORK = 1 << 28  # of all pieces the squares of their lengths, which is what finding their halves costs; real ones have a tenth
ROLES = ("bos", "eos", "unknown", "padding")
Parts = Sequence[pre_tokenizers.PreTokenizer]

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{ENDS}"
QWEN2 = LLAMA3.replace("{1,3}", "")
BEFORE = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{ENDS}"
DEFAULT = r"[\p{P}\$\+<=>\^~\|]+"


@dataclass(frozen=True, slots=True)
class Split:
    """How a text is cut before BPE. `whole`: a piece that is a token is that token, however merges would go about it."""

    parts: Callable[[bool], Parts]  # from whether a space is put first
    whole: bool = False
    composes: bool = False  # into Unicode's composed form, first of all


def by_regex(pattern: str) -> Callable[[bool], Parts]:
    return lambda space: (isolated(pattern), pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False))


def isolated(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def gpt2(space: bool) -> Parts:
    return (pre_tokenizers.ByteLevel(add_prefix_space=space),)


def digits(space: bool) -> Parts:
    return pre_tokenizers.Digits(individual_digits=True), *gpt2(space)


def falcon(space: bool) -> Parts:
    threes = isolated("[0-9][0-9][0-9]")
    return pre_tokenizers.Punctuation("contiguous"), *gpt2(space), pre_tokenizers.Digits(individual_digits=False), threes


def default(space: bool) -> Parts:
    """What llama.cpp did for every file before there were names."""
    return isolated(DEFAULT), *gpt2(space), isolated(r"\p{N}+"), isolated("[0-9][0-9][0-9]")


SPLITS: dict[str, Split] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt"), Split(gpt2)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Split(by_regex(LLAMA3), whole=True)),
    **dict.fromkeys(("qwen2", "megrez"), Split(by_regex(QWEN2), composes=True)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell"), Split(digits)),
    "falcon": Split(falcon),
    "tekken": Split(by_regex(TEKKEN), whole=True),
    "default": Split(default),
}
NAMELESS = {"falcon": "falcon", "opt": "gpt-2"}  # by architecture: PowerInfer's files are older than the names


def tokenizer_files(metadata: Metadata, vocab: int) -> dict[str, str]:
    """`tokenizer.json` and `tokenizer_config.json`, by name; none when the file has no tokenizer.

    BadCheckpoint when it is not one of at most `vocab` tokens that we can read.
    """
    if f"{AT}.model" not in metadata and f"{AT}.tokens" not in metadata:
        return {}
    tokens = read_tokens(metadata, vocab)
    kind = metadata.text(f"{AT}.model")
    if kind not in READERS:
        raise BadCheckpoint(metadata.path, f"has a tokenizer of kind {kind!r}; supported: {', '.join(READERS)}")
    metadata.expect(f"{AT}.add_eos_token", False)
    begins = adds_bos(metadata, kind)
    ids = {role: metadata.natural(key) for role in ROLES if (key := f"{AT}.{role}_token_id") in metadata}
    for role, token in ids.items():
        if token >= len(tokens.texts):
            raise BadCheckpoint(metadata.path, f"key '{AT}.{role}_token_id' is {token}, and there are {len(tokens.texts)} tokens")
    if begins and "bos" not in ids:
        raise BadCheckpoint(metadata.path, f"wants a token before every text, and has no '{AT}.bos_token_id'")
    try:
        core = READERS[kind](metadata, tokens, ids["bos"] if begins else None)
        written = core.to_str()
    except BadCheckpoint:
        raise
    except Exception as error:  # the library raises bare Exception
        said = "".join(letter for letter in " ".join(str(error).split()) if letter.isprintable())
        raise BadCheckpoint(metadata.path, f"does not describe a tokenizer: {said[:200]}") from None
    return {"tokenizer.json": written, "tokenizer_config.json": json.dumps(settings(metadata, tokens, ids, begins))}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token i has id i."""

    texts: list[str]
    scores: Sequence[float]
    kinds: Sequence[int]


def read_tokens(metadata: Metadata, vocab: int) -> Tokens:
    found = metadata.strings(f"{AT}.tokens")
    if not found:
        raise BadCheckpoint(metadata.path, f"has no tokenizer: key '{AT}.tokens' is missing")
    if len(found) > vocab:
        raise BadCheckpoint(metadata.path, f"has {len(found)} tokens, but the model knows only {vocab}")
    if sum(len(text) ** 2 for text in found) > MOST_WORK:
        raise BadCheckpoint(metadata.path, "has a vocabulary of pieces too long to be one")
    try:
        texts = [text.decode() for text in found]
    except UnicodeDecodeError:
        raise BadCheckpoint(metadata.path, f"key '{AT}.tokens' has a token that is not UTF-8") from None
    scores = metadata.numbers(f"{AT}.scores") or (0.0,) * len(texts)
    kinds = metadata.numbers(f"{AT}.token_type") or (int(Kind.NORMAL),) * len(texts)
    if len(scores) != len(texts) or len(kinds) != len(texts):
        raise BadCheckpoint(metadata.path, f"has {len(texts)} tokens, {len(scores)} scores of them and {len(kinds)} types")
    return Tokens(texts, scores, [int(kind) for kind in kinds])


def adds_bos(metadata: Metadata, kind: str) -> bool:
    """As the file says; where it does not, SentencePiece and Llama 3 put one."""
    usual = kind == "llama" or SPLITS.get(metadata.text(f"{AT}.pre", "gpt-2"), SPLITS["gpt-2"]).parts is SPLITS["llama-bpe"].parts
    return metadata.flag(f"{AT}.add_bos_token", default=usual)


def read_pieces(metadata: Metadata, tokens: Tokens, bos: int | None) -> tokenizers.Tokenizer:
    pieces = Pieces(
        texts=tokens.texts,
        scores=tokens.scores,
        kinds=tokens.kinds,
        space_first=metadata.flag(f"{AT}.add_space_prefix", default=True),
        squeezes=metadata.flag(f"{AT}.remove_extra_whitespaces", default=False),
    )
    return build(pieces, bos=bos)


def read_merges(metadata: Metadata, tokens: Tokens, bos: int | None) -> tokenizers.Tokenizer:
    split = split_of(metadata)
    written = metadata.strings(f"{AT}.merges")
    if written is None:
        raise BadCheckpoint(metadata.path, f"key '{AT}.merges' is missing")
    merges = [(left.decode(), right.decode()) for left, _, right in (merge.partition(b" ") for merge in written)]
    vocab = {text: number for number, text in reversed(list(enumerate(tokens.texts))) if tokens.kinds[number] != Kind.UNUSED}
    core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=split.whole))
    if split.composes:
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(list(split.parts(metadata.flag(f"{AT}.add_space_prefix", default=False))))
    core.decoder = decoders.ByteLevel()
    for text, kind in zip(tokens.texts, tokens.kinds, strict=True):
        if kind in (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED):
            core.add_tokens([AddedToken(text, normalized=False, special=kind != Kind.USER_DEFINED)])
    if bos is not None:
        name = tokens.texts[bos]
        core.post_processor = processors.TemplateProcessing(f"{name} $A", f"{name} $A {name} $B", [(name, bos)])
    return core


def split_of(metadata: Metadata) -> Split:
    name = metadata.text(f"{AT}.pre", NAMELESS.get(metadata.text("general.architecture"), ""))
    if not name:
        raise BadCheckpoint(metadata.path, f"key '{AT}.pre' is missing: the file does not tell how its tokenizer splits a text")
    if name not in SPLITS:
        raise BadCheckpoint(metadata.path, f"key '{AT}.pre': {name[:60]!r} is not a split we have tested; tested: {', '.join(SPLITS)}")
    return SPLITS[name]


READERS = {"llama": read_pieces, "gpt2": read_merges}


def settings(metadata: Metadata, tokens: Tokens, ids: dict[str, int], begins: bool) -> dict[str, object]:
    """What tokenizer_config.json would hold."""
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    found: dict[str, object] = {"add_bos_token": begins} | {names[role]: tokens.texts[token] for role, token in ids.items()}
    template = metadata.get("tokenizer.chat_template")
    return found | {"chat_template": template} if isinstance(template, str) else found
