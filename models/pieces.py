"""A SentencePiece vocabulary -> a `tokenizers` pipeline that gives the same ids. Knows no files.

SentencePiece (Kudo and Richardson 2018) writes spaces as ▁ and puts one first; BPE models join the two neighbours whose union has the
best score, unigram models choose the split of the best sum; a character that no piece has is spelled in bytes, or is unknown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

SPACE = "▁"


class Kind(IntEnum):
    """Of a piece, numbered as SentencePiece and GGUF do."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Pieces:
    """Piece i has id i. `charsmap` is SentencePiece's compiled normalisation, `squeezes`: runs of spaces count as one, ends are cut off.

    `once`: the first space is put only where a text begins, and not again after a special token (transformers' `legacy: false`).
    """

    texts: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    unigram: bool = False
    space_first: bool = True
    once: bool = False
    squeezes: bool = False
    charsmap: bytes = b""

    @property
    def unknown(self) -> int | None:
        return self.kinds.index(Kind.UNKNOWN) if Kind.UNKNOWN in self.kinds else None

    @property
    def spells_bytes(self) -> bool:
        return Kind.BYTE in self.kinds

    @property
    def ids(self) -> dict[str, int]:
        """The first id of each text."""
        return {text: number for number, text in reversed(list(enumerate(self.texts)))}


def build(pieces: Pieces, *, bos: int | None = None) -> tokenizers.Tokenizer:
    """The pipeline; with `bos`, that token is put before every text. Raises what `tokenizers` does when a vocabulary makes no sense."""
    core = tokenizers.Tokenizer(_unigram(pieces) if pieces.unigram else _bpe(pieces))
    core.normalizer = normalizers.Sequence(list(_normalizers(pieces)))
    if pieces.space_first and pieces.once:
        core.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", False)
    core.decoder = decoders.Sequence(list(_decoders(pieces)))
    for text, kind in zip(pieces.texts, pieces.kinds, strict=True):
        if kind in (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED):
            core.add_tokens([AddedToken(text, normalized=False, special=kind != Kind.USER_DEFINED)])
    if bos is not None:
        name = pieces.texts[bos]
        core.post_processor = processors.TemplateProcessing(f"{name} $A", f"{name} $A {name} $B", [(name, bos)])
    return core


def _bpe(pieces: Pieces) -> models.BPE:
    unknown = None if pieces.unknown is None else pieces.texts[pieces.unknown]
    merges = list(merges_of(pieces))
    return models.BPE(vocab=pieces.ids, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=pieces.spells_bytes)


def _unigram(pieces: Pieces) -> models.Unigram:
    scored = list(zip(pieces.texts, pieces.scores, strict=True))
    return models.Unigram(scored, pieces.unknown, pieces.spells_bytes)


def merges_of(pieces: Pieces) -> Iterator[tuple[str, str]]:
    """Which neighbours may be joined, best first: those whose union is a piece, by its score."""
    ids = {text: number for text, number in pieces.ids.items() if pieces.kinds[number] in (Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED)}
    for text in sorted(ids, key=lambda text: (-pieces.scores[ids[text]], ids[text])):
        splits = [(text[:at], text[at:]) for at in range(1, len(text))]
        known = [(left, right) for left, right in splits if left in ids and right in ids]
        yield from sorted(known, key=lambda pair: (len(pair[0]), ids[pair[0]], ids[pair[1]]))


def _normalizers(pieces: Pieces) -> Iterator[normalizers.Normalizer]:
    if pieces.charsmap:
        yield normalizers.Precompiled(pieces.charsmap)
    if pieces.squeezes:
        yield normalizers.Replace(Regex(r"\A +| +\z"), "")  # Strip would take other spaces too
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if pieces.space_first and not pieces.once:
        yield normalizers.Prepend(SPACE)
    yield normalizers.Replace(" ", SPACE)


def _decoders(pieces: Pieces) -> Iterator[decoders.Decoder]:
    yield decoders.Replace(SPACE, " ")
    if pieces.spells_bytes:
        yield decoders.ByteFallback()
    yield decoders.Fuse()
    if pieces.space_first:
        yield decoders.Strip(" ", 1, 0)
