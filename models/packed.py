"""PackedModel: a packed folder, opened. Reads straight into the memory that will be used, a bounded chunk at a time where
rows change places, so that loading needs little more than what it keeps."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.bank import NeuronBank
from models.bits import BITS, FormatName
from models.errors import BadArtefact
from models.layout import MANIFEST_FILE, SPINE_FILE, BankRegions, Region, bank_regions, layer_bytes, layer_file, spine_tensors
from models.manifest import REMEDY, Manifest, StoredTensor, computed_sizes, load_manifest
from models.rows import Rows
from models.spine import LayerSpine, Spine

CHUNK_BYTES = 1 << 18
Allocate = Callable[[int], Tensor]  # bytes -> uint8 [bytes] in CPU memory


def allocate(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class PackedModel:
    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "PackedModel":
        """Reads the manifest and checks that every file has its size; BadArtefact says which does not."""
        manifest = load_manifest(folder / MANIFEST_FILE)
        check_agrees(manifest, folder / MANIFEST_FILE)
        spine_end = max((stored.offset + _nbytes(stored) for stored in manifest.spine.values()), default=0)
        wanted = {SPINE_FILE: spine_end} | {layer_file(layer): layer_bytes(manifest) for layer in range(manifest.spec.n_layers)}
        for name, count in wanted.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != count:
                found = f"has {path.stat().st_size} bytes" if path.is_file() else "is missing"
                raise BadArtefact(path, f"{found}, {count} are wanted", REMEDY)
        return cls(folder, manifest)

    @property
    def source(self) -> Path:
        return Path(self.manifest.source)

    def load_spine(self, device: torch.device | str = "cpu") -> Spine:
        """Everything but the neurons."""
        layers = [self.load_layer_spine(layer, device) for layer in range(self.manifest.spec.n_layers)]
        embed = self.load_embedding(device)
        with opened(self.folder / SPINE_FILE) as descriptor:
            head = embed if self.manifest.spec.tied_head else self._rows(descriptor, "head", device)
            return Spine(embed, layers, self._vector(descriptor, "norm", device), head)

    def load_embedding(self, device: torch.device | str = "cpu") -> Rows:
        with opened(self.folder / SPINE_FILE) as descriptor:
            return self._rows(descriptor, "embed", device)

    def load_layer_spine(self, layer: int, device: torch.device | str = "cpu") -> LayerSpine:
        at = f"layers.{layer}"
        with opened(self.folder / SPINE_FILE) as descriptor:
            return LayerSpine(
                attention_norm=self._vector(descriptor, f"{at}.attention_norm", device),
                qkv=self._rows(descriptor, f"{at}.qkv", device),
                qkv_bias=self._optional(descriptor, f"{at}.qkv_bias", device),
                o=self._rows(descriptor, f"{at}.o", device),
                o_bias=self._optional(descriptor, f"{at}.o_bias", device),
                ffn_norm=self._vector(descriptor, f"{at}.ffn_norm", device),
                down_bias=self._optional(descriptor, f"{at}.down_bias", device),
            )

    def _rows(self, descriptor: int, name: str, device: torch.device | str) -> Rows:
        stored = self.manifest.spine[name]
        data = allocate(_nbytes(stored))
        read_into(descriptor, stored.offset, data)
        return Rows.view(stored.format, stored.width, data.view(stored.rows, -1).to(device))

    def _vector(self, descriptor: int, name: str, device: torch.device | str) -> Tensor:
        return self._rows(descriptor, name, device).decode()[0]

    def _optional(self, descriptor: int, name: str, device: torch.device | str) -> Tensor | None:
        return self._vector(descriptor, name, device) if name in self.manifest.spine else None

    def load_banks(
        self,
        layer: int,
        order: Tensor | None = None,
        hot: Sequence[int] | None = None,
        hot_device: torch.device | str = "cpu",
        allocate: Allocate = allocate,
    ) -> list[tuple[NeuronBank, NeuronBank]]:
        """One (hot, cold) pair per expert of `layer`.

        order: int64 [E, N], hottest first; file order when None. hot: how many of that order go to `hot_device`, per expert;
        none when None. Cold rows are put where `allocate` says.
        """
        spec = self.manifest.spec
        pairs = []
        with opened(self.folder / layer_file(layer)) as descriptor:
            for expert in range(spec.n_experts):
                place = torch.arange(spec.n_neurons)
                if order is not None:
                    place = torch.empty_like(order[expert]).scatter_(0, order[expert], place)
                count = 0 if hot is None else hot[expert]
                split = _Split(descriptor, place, count, torch.device(hot_device), allocate)
                pairs.append(self._bank(split, bank_regions(spec, self.manifest.sizes, expert)))
        return pairs

    def _bank(self, split: "_Split", regions: BankRegions) -> tuple[NeuronBank, NeuronBank]:
        gate, both = split.read(regions.gate), split.read(regions.up_down)
        gate_bias, up_bias = split.read(regions.gate_bias), split.read(regions.up_bias)
        name, k, up_bytes = self.manifest.formats.neurons, self.manifest.spec.hidden, self.manifest.sizes.up_row
        return (
            _assemble(name, k, up_bytes, gate[0], both[0], gate_bias[0], up_bias[0]),
            _assemble(name, k, up_bytes, gate[1], both[1], gate_bias[1], up_bias[1]),
        )


def check_agrees(manifest: Manifest, path: Path) -> None:
    """Raises BadArtefact unless the bytes and tensors a manifest counts are those of the model it describes."""
    if manifest.sizes != computed_sizes(manifest.spec, manifest.formats):
        raise BadArtefact(path, "its sizes are not those of its model", REMEDY)
    for name, shape in spine_tensors(manifest.spec, manifest.formats):
        stored = manifest.spine.get(name)
        if stored is None or (stored.format, stored.rows, stored.width) != (shape.format, shape.rows, shape.width):
            raise BadArtefact(path, f"its tensor {name!r} is not that of its model", REMEDY)


def _assemble(name: FormatName, k: int, up_bytes: int, gate: Tensor, both: Tensor, gate_bias: Tensor, up_bias: Tensor) -> NeuronBank:
    """A bank over records: gate [n, g], up|down [n, u + d], biases [n, 4]; a record of no bytes stands for what is not there."""
    return NeuronBank(
        gate=Rows.view(name, k, gate) if gate.shape[1] else None,
        up=Rows.view(name, k, both[:, :up_bytes]),
        down=Rows.view(name, k, both[:, up_bytes:]),
        gate_bias=gate_bias.view(torch.float32)[:, 0] if gate_bias.shape[1] else None,
        up_bias=up_bias.view(torch.float32)[:, 0] if up_bias.shape[1] else None,
    )


@dataclass(frozen=True, slots=True)
class _Split:
    """Reads regions record by record to their places: `place[i]` is where neuron i of the file goes; the first `hot` are hot."""

    descriptor: int
    place: Tensor
    hot: int
    device: torch.device
    allocate: Allocate

    def read(self, region: Region) -> tuple[Tensor, Tensor]:
        """uint8 [hot, record] on the device, uint8 [n - hot, record] in CPU memory."""
        width = region.record_bytes
        warm = torch.empty(self.hot, width, dtype=torch.uint8, device=self.device)
        cold = self.allocate((region.count - self.hot) * width).view(region.count - self.hot, width)
        for start, records in record_chunks(self.descriptor, region):
            place = self.place[start : start + len(records)]
            is_hot = place < self.hot
            if self.hot:
                warm[place[is_hot].to(self.device)] = records[is_hot].to(self.device)
            cold[place[~is_hot] - self.hot] = records[~is_hot]
        return warm, cold


def record_chunks(descriptor: int, region: Region) -> Iterator[tuple[int, Tensor]]:
    """(number of the first record, uint8 [m, record]), through one buffer that is used again and again."""
    if not region.nbytes:
        return
    step = max(1, CHUNK_BYTES // region.record_bytes)
    buffer = allocate(min(step, region.count) * region.record_bytes)
    for start in range(0, region.count, step):
        count = min(step, region.count - start)
        data = buffer[: count * region.record_bytes]
        read_into(descriptor, region.offset + start * region.record_bytes, data)
        yield start, data.view(count, region.record_bytes)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_into(descriptor: int, offset: int, data: Tensor) -> None:
    """Fills uint8 `data` from `offset`; the sizes were checked when the folder was opened, so an early end is a changed file."""
    view, done = data.numpy().data, 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done:]], offset + done)
        if got == 0:
            raise BadArtefact(Path(f"/proc/self/fd/{descriptor}").readlink(), "became shorter while it was read", REMEDY)
        done += got


def _nbytes(stored: StoredTensor) -> int:
    return stored.rows * BITS[stored.format].row_bytes(stored.width)
