"""The files of a packed folder, each written from front to back by one thread. Knows no folder: what is missing is `pack.py`'s business."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from models.bits import FormatName
from models.checkpoint.base import Checkpoint
from models.layout import ALIGNMENT, Region, aligned, bank_regions, spine_tensors
from models.manifest import Formats, Manifest, StoredTensor
from models.paths import whole_file
from models.rows import Rows
from models.spec import ModelSpec

Encode = Callable[[FormatName, Tensor], Tensor]  # floating rows [n, k], or columns in one piece -> uint8 records [n, row_bytes]

CHUNK_WEIGHTS = 1 << 19  # read, encoded and written at a time


def encode_plainly(name: FormatName, weights: Tensor) -> Tensor:
    """As the formats define it. `cpu_ops.encode` has kernels that give the same bits, and who stands above both hands them in."""
    return Rows.encode(name, weights.contiguous()).records()


def write_layer(checkpoint: Checkpoint, draft: Manifest, layer: int, path: Path, encode: Encode) -> None:
    """One layer file: every expert's gate region, its up|down region, its biases."""
    spec, name = checkpoint.spec, draft.formats.neurons
    with whole_file(path) as part, part.open("wb") as file:
        for expert in range(spec.n_experts):
            base = f"layers.{layer}.experts.{expert}"
            regions = bank_regions(spec, draft.sizes, expert)
            if regions.gate.nbytes:
                gates = chunks(spec.n_neurons, spec.hidden)
                write_region(file, regions.gate, (encoded(checkpoint, f"{base}.gate", name, encode, chunk) for chunk in gates))
            write_region(file, regions.up_down, _up_down_records(checkpoint, base, name, encode))
            for region, bias in ((regions.gate_bias, "gate_bias"), (regions.up_bias, "up_bias")):
                if region.nbytes:
                    write_region(file, region, iter([checkpoint.read(f"{base}.{bias}").view(torch.uint8)]))
            pad_to(file, regions.end)


def encoded(checkpoint: Checkpoint, tensor: str, name: FormatName, encode: Encode, chunk: tuple[int, int]) -> Tensor:
    """uint8 records [m, row_bytes] of the rows start..stop of a matrix; as they are stored, where they are stored so."""
    held = checkpoint.held(tensor, name, *chunk)
    return encode(name, checkpoint.stored(tensor, *chunk)) if held is None else held.records()


def _up_down_records(checkpoint: Checkpoint, base: str, name: FormatName, encode: Encode) -> Iterator[Tensor]:
    down: Tensor | None = None  # [H, N], read when the files do not have its columns, which become our rows, in one piece
    if checkpoint.columns(f"{base}.down", name, 0, 0) is None:
        down = checkpoint.stored(f"{base}.down")
    for chunk in chunks(checkpoint.spec.n_neurons, checkpoint.spec.hidden):
        up = encoded(checkpoint, f"{base}.up", name, encode, chunk)
        if down is None:
            columns = checkpoint.columns(f"{base}.down", name, *chunk)
            assert columns is not None
            yield torch.cat((up, columns.records()), dim=1)
        else:
            yield torch.cat((up, encode(name, down[:, slice(*chunk)].T)), dim=1)


def chunks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """start, stop of pieces of at most CHUNK_WEIGHTS weights."""
    step = max(1, CHUNK_WEIGHTS // width)
    return ((start, min(rows, start + step)) for start in range(0, rows, step))


def write_region(file: IO[bytes], region: Region, parts: Iterator[Tensor]) -> None:
    pad_to(file, region.offset)
    for records in parts:
        file.write(records.contiguous().numpy().data)
    assert file.tell() == region.offset + region.nbytes, (file.tell(), region)
    set_off(file, region.offset, region.nbytes)


def set_off(file: IO[bytes], offset: int, count: int) -> None:
    """What was written begins its way to the disk, so that little is left when the file is synced."""
    if hasattr(os, "posix_fadvise"):
        file.flush()
        os.posix_fadvise(file.fileno(), offset, count, os.POSIX_FADV_DONTNEED)


def pad_to(file: IO[bytes], offset: int) -> None:
    gap = offset - file.tell()
    assert 0 <= gap < ALIGNMENT, gap
    file.write(bytes(gap))


def spine_places(spec: ModelSpec, formats: Formats) -> dict[str, StoredTensor]:
    """Where in `spine.bin` each tensor lies."""
    stored: dict[str, StoredTensor] = {}
    end = 0
    for name, shape in spine_tensors(spec, formats):
        stored[name] = tensor = StoredTensor(format=shape.format, rows=shape.rows, width=shape.width, offset=aligned(end))
        end = tensor.offset + tensor.nbytes
    return stored


def spine_end(stored: Mapping[str, StoredTensor]) -> int:
    """Bytes of `spine.bin`: tensors lie in their order."""
    return max((tensor.offset + tensor.nbytes for tensor in stored.values()), default=0)


def write_spine(checkpoint: Checkpoint, stored: Mapping[str, StoredTensor], path: Path, encode: Encode) -> None:
    """`spine.bin`."""
    with whole_file(path) as part, part.open("wb") as file:
        for name, tensor in stored.items():
            pad_to(file, tensor.offset)
            for records in spine_records(checkpoint, sources_of(name), tensor.format, encode):
                file.write(records.numpy().data)
            set_off(file, tensor.offset, tensor.nbytes)


def sources_of(name: str) -> tuple[str, ...]:
    """The checkpoint's tensors that a stored one is made of, one below the other."""
    layer, _, part = name.rpartition(".")
    joined = {"qkv": ("q", "k", "v"), "qkv_bias": ("q_bias", "k_bias", "v_bias")}
    return tuple(f"{layer}.{source}" for source in joined[part]) if part in joined else (name,)


def spine_records(checkpoint: Checkpoint, sources: tuple[str, ...], name: FormatName, encode: Encode) -> Iterator[Tensor]:
    """uint8 records [m, row_bytes], chunk by chunk."""
    shapes = [checkpoint.shape(source) for source in sources]
    if len(shapes[0]) == 1:
        joined = torch.cat([checkpoint.read(source) for source in sources])
        yield Rows.encode(name, joined.unsqueeze(0)).records()
        return
    for source, shape in zip(sources, shapes, strict=True):
        yield from (encoded(checkpoint, source, name, encode, chunk) for chunk in chunks(*shape))
