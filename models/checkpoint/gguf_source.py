"""Tensors out of GGUF files: as float32, or as rows of ours where the file holds the same numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.arena import allocate
from models.bits import FormatName
from models.checkpoint.base import Checkpoint
from models.checkpoint.gguf_blocks import decode, rows_of
from models.checkpoint.gguf_config import describe
from models.checkpoint.gguf_tensors import View
from models.checkpoint.gguf_tokenizer import tokenizer_files
from models.checkpoint.headers import read_to
from models.rows import Rows

AS_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class GgufSource:
    """Satisfies `Source` and `StoredRows`."""

    views: Mapping[str, View]
    digest: str

    def names(self) -> list[str]:
        return list(self.views)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.views[name].shape

    def fingerprint(self, config_digest: str) -> str:
        return self.digest

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        view = self.views[name]
        chosen = range(*slice(start, stop).indices(view.shape[0]))
        if view.turned:
            return _floats(view, _raw(view, 0, view.shape[1])).T[chosen.start : chosen.stop].contiguous()
        if len(view.shape) == 1:
            vector = _floats(view, _raw(view, 0, 1))[0]
            return vector[_places(view, range(view.shape[0]))][chosen.start : chosen.stop]
        outer = _whole_heads(view, chosen)
        return _floats(view, _raw(view, outer.start, outer.stop))[_inside(view, chosen, outer)]

    def rows(self, name: str, format_name: FormatName, start: int, stop: int) -> Rows | None:
        view = self.views[name]
        if view.turned:
            return None
        chosen = range(start, stop)
        outer = _whole_heads(view, chosen)
        found = rows_of(view.stored.type, _raw(view, outer.start, outer.stop), format_name)
        return None if found is None else found[_inside(view, chosen, outer)]

    def is_turned(self, name: str) -> bool:
        return self.views[name].turned

    def columns(self, name: str, format_name: FormatName, start: int, stop: int) -> Rows:
        view = self.views[name]
        raw = _raw(view, start, stop)
        found = rows_of(view.stored.type, raw, format_name)
        return Rows.encode(format_name, _floats(view, raw)) if found is None else found


def _raw(view: View, start: int, stop: int) -> Tensor:
    """uint8 [stop - start, row_bytes] of the file."""
    stored = view.stored
    data = allocate((stop - start) * stored.row_bytes)
    read_to(stored.path, stored.offset + (view.first + start) * stored.row_bytes, data.numpy().data)
    return data.view(stop - start, stored.row_bytes)


def _floats(view: View, raw: Tensor) -> Tensor:
    """In the type of the file where that is a float's, else float32."""
    dtype = AS_STORED.get(view.stored.kind)
    return decode(view.stored.type, raw) if dtype is None else raw.view(dtype)


def _whole_heads(view: View, chosen: range) -> range:
    """The rows of the file among which `chosen` ones of the matrix are."""
    if view.heads is None:
        return chosen
    height = view.shape[0] // view.heads
    return range(chosen.start // height * height, -(-chosen.stop // height) * height)


def _inside(view: View, chosen: range, outer: range) -> slice | Tensor:
    """Where `chosen` rows of the matrix are among the rows `outer` of the file."""
    if view.heads is None:
        return slice(None)
    return _places(view, chosen) - outer.start


def _places(view: View, chosen: range) -> Tensor:
    """int64: where the file has those rows. Row p of the first half of a head is its row 2p there, of the second 2p + 1."""
    rows = torch.arange(chosen.start, chosen.stop)
    if view.heads is None:
        return rows
    height = view.shape[0] // view.heads
    head, inside = rows // height, rows % height
    half, pair = inside // (height // 2), inside % (height // 2)
    return head * height + 2 * pair + half


def open_gguf(path: Path) -> Checkpoint:
    """A GGUF file, or any shard of one. Reads headers only."""
    found = describe(path)
    return Checkpoint(
        found.file.path,
        found.spec,
        found.family,
        GgufSource(found.views, found.fingerprint),
        found.fingerprint,
        default_format=found.default_format,
        texts=partial(tokenizer_files, found.file.metadata, found.spec.vocab),
    )
