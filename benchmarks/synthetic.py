"""Synthetic models: real shapes and a planted law of firing, without real weights or their disk space.

Written straight into the packed format: one random layer, which every layer's file is a hard link to, and one layer of spine,
which every layer's entry points at. Loading reads each of them separately, so memory and its traffic are those of the real shape.

How firing is planted: `benchmarks/planted.py`. Channel 0 of the residual is a constant and stays so, because no layer writes to
the group of channels set apart (rows of `o` and columns of `down` are zero there). Layers add little to the residual (GAIN), so
that the law holds at every depth.
"""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from benchmarks.planted import CONSTANT, FIRING, RESIDUAL, Planted
from models.bits import GROUP, FormatName
from models.layout import MANIFEST_FILE, SPINE_FILE, aligned, bank_regions, layer_bytes, layer_file
from models.manifest import Formats, Manifest, StoredTensor, computed_sizes
from models.pack_files import chunks, pad_to, write_region
from models.packed import PackedModel
from models.paths import check_disk, whole_file
from models.rows import Rows
from models.spec import ModelSpec

FORMAT: FormatName = "int4"
SEED = 0
VERSION = 2  # of the law: what an older one wrote is written again
GAIN = 0.08  # what a layer adds: little, for a layer that is repeated adds much the same every time


class Weights:
    """Random float32 rows, chunk by chunk, from one seed."""

    def __init__(self, spec: ModelSpec, seed: int) -> None:
        self.spec, self.generator = spec, torch.Generator().manual_seed(seed)
        self.planted = Planted(spec, seed)

    def normal(self, n: int, k: int, deviation: float) -> Tensor:
        return torch.randn(n, k, generator=self.generator) * deviation

    def apart(self, n: int, deviation: float) -> Tensor:
        """Rows over hidden channels, zero on the group that is set apart."""
        rows = self.normal(n, self.spec.hidden, deviation)
        rows[:, :GROUP] = 0.0
        return rows

    @property
    def unit(self) -> float:
        """The deviation of weights that keep a normed state's variance."""
        return 1 / math.sqrt(self.spec.hidden - GROUP)

    def gate(self) -> Iterator[Tensor]:
        for start, stop in chunks(self.spec.n_neurons, self.spec.hidden):
            yield self.planted.gate(start, stop)

    def up_and_down(self) -> Iterator[tuple[Tensor, Tensor]]:
        deviation = GAIN / (FIRING * self.spec.n_neurons) ** 0.5
        for start, stop in chunks(self.spec.n_neurons, self.spec.hidden):
            up = self.apart(stop - start, self.unit)
            if self.planted.up_bias is not None:
                up[:, 0] = self.planted.up_bias[start:stop]
            yield up, self.apart(stop - start, deviation)

    def embedding(self) -> Iterator[Tensor]:
        for start, stop in chunks(self.spec.vocab, self.spec.hidden):
            rows = self.apart(stop - start, RESIDUAL)
            rows[:, 0] = CONSTANT
            yield rows

    def head(self) -> Iterator[Tensor]:
        for start, stop in chunks(self.spec.vocab, self.spec.hidden):
            yield self.apart(stop - start, self.unit)

    def qkv(self) -> Iterator[Tensor]:
        for start, stop in chunks(self.spec.q_width + 2 * self.spec.kv_width, self.spec.hidden):
            yield self.apart(stop - start, self.unit)

    def o(self) -> Iterator[Tensor]:
        for start, stop in chunks(self.spec.hidden, self.spec.q_width):
            rows = self.normal(stop - start, self.spec.q_width, GAIN * self.spec.q_width**-0.5)
            rows[: max(0, GROUP - start)] = 0.0
            yield rows


def build(name: str, spec: ModelSpec, folder: Path, seed: int = SEED) -> PackedModel:
    """The packed model in `folder`, written now if it is not there. DoesNotFit when the disk is too small."""
    fingerprint = f"planted-{VERSION}:{seed}"
    if not is_written(folder, spec, fingerprint):
        formats = Formats.of(FORMAT)
        sizes = computed_sizes(spec, formats)
        manifest = Manifest(
            name=f"synthetic-{name}",
            source=str(folder),
            fingerprint=fingerprint,
            assumed=False,
            spec=spec,
            formats=formats,
            sizes=sizes,
        )
        check_disk(folder, layer_bytes(manifest) + sizes.embedding + sizes.spine // spec.n_layers + (1 << 20))
        weights = Weights(spec, seed)
        write_layers(weights, manifest, folder)
        stored = write_spine(weights, formats, folder / SPINE_FILE)
        with whole_file(folder / MANIFEST_FILE) as part:
            part.write_text(manifest.model_copy(update={"spine": stored}).model_dump_json(indent=1))
    return PackedModel.open(folder)


def is_written(folder: Path, spec: ModelSpec, fingerprint: str) -> bool:
    """Whether the folder has what is wanted, and not what a name stood for in an older version."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    manifest = PackedModel.open(folder).manifest
    return manifest.spec == spec and manifest.fingerprint == fingerprint


def write_layers(weights: Weights, manifest: Manifest, folder: Path) -> None:
    """Layer 0, and every other layer as another name of it."""
    regions = bank_regions(manifest.spec, manifest.sizes, 0)
    first = folder / layer_file(0)
    with whole_file(first) as part, part.open("wb") as file:
        write_region(file, regions.gate, (Rows.encode(FORMAT, rows).records() for rows in weights.gate()))
        write_region(file, regions.up_down, (side_by_side(up, down) for up, down in weights.up_and_down()))
        pad_to(file, regions.end)
    for layer in range(1, manifest.spec.n_layers):
        with whole_file(folder / layer_file(layer)) as part:
            link_or_copy(first, part)


def side_by_side(up: Tensor, down: Tensor) -> Tensor:
    return torch.cat((Rows.encode(FORMAT, up).records(), Rows.encode(FORMAT, down).records()), dim=1)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def write_spine(weights: Weights, formats: Formats, path: Path) -> dict[str, StoredTensor]:
    """Embedding, head, last norm, and one layer that all layers point at."""
    stored: dict[str, StoredTensor] = {}
    with whole_file(path) as part, part.open("wb") as file:
        for name, format_name, pieces in spine_plan(weights, formats):
            tensor = write_tensor(file, format_name, pieces)
            whole = name in ("embed", "head", "norm")
            stored |= {name: tensor} if whole else {f"layers.{layer}.{name}": tensor for layer in range(weights.spec.n_layers)}
    return stored


def spine_plan(weights: Weights, formats: Formats) -> list[tuple[str, FormatName, Iterator[Tensor]]]:
    """Names, formats and rows of the tensors, in the order of the file."""
    ones = torch.ones(1, weights.spec.hidden)
    apart = ones.clone()
    apart[:, :GROUP] = 0.0
    return [
        ("embed", formats.embedding, weights.embedding()),
        ("head", formats.embedding, weights.head()),
        ("norm", "float32", iter([ones])),
        ("attention_norm", "float32", iter([apart])),
        ("qkv", formats.spine, weights.qkv()),
        ("o", formats.spine, weights.o()),
        ("ffn_norm", "float32", iter([ones])),
    ]


def write_tensor(file: BinaryIO, format_name: FormatName, pieces: Iterator[Tensor]) -> StoredTensor:
    """Pieces of one tensor, one after the other, from the next aligned place on."""
    pad_to(file, aligned(file.tell()))
    offset, rows, width = file.tell(), 0, 0
    for piece in pieces:
        file.write(Rows.encode(format_name, piece).records().numpy().data)
        rows, width = rows + piece.shape[0], piece.shape[1]
    return StoredTensor(format=format_name, rows=rows, width=width, offset=offset)
