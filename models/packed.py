"""PackedModel: a packed folder, opened. Reads straight into the memory that will be used, every row to its place in the
profile's order, so that loading needs little more than what it keeps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.arena import allocate
from models.bank import NeuronBank
from models.errors import BadArtefact
from models.layout import (
    INWARD,
    MANIFEST_FILE,
    OUTWARD,
    SPINE_FILE,
    BankRegions,
    Region,
    bank_regions,
    is_predictor,
    layer_bytes,
    layer_file,
    spine_tensors,
)
from models.manifest import REMEDY, Manifest, computed_sizes, load_manifest
from models.predictor import ABOVE_ZERO, Predictor
from models.reading import Span, contiguous, opened, read, scattered, shared_out
from models.rows import Rows
from models.spine import Entrance, LayerSpine, Norm, Spine

JOB_BYTES = 1 << 22  # of the spine, that a thread reads at once

B = TypeVar("B")
Allocate = Callable[[int], Tensor]  # bytes -> uint8 [bytes] in CPU memory


@dataclass(frozen=True, slots=True)
class PackedModel:
    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "PackedModel":
        """Reads the manifest and checks that every file has its size; BadArtefact says which does not."""
        manifest = load_manifest(folder / MANIFEST_FILE)
        check_agrees(manifest, folder / MANIFEST_FILE)
        spine_end = max((stored.offset + stored.nbytes for stored in manifest.spine.values()), default=0)
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

    def load_spine(self, device: torch.device | str = "cpu", allocate: Allocate = allocate) -> Spine:
        """Everything but the neurons, put where `allocate` says (called from several threads) when `device` is the CPU."""
        return self._spine(self._tensors(self._spine_names, device, allocate))

    def load(
        self, load_layer: Callable[[int], B], device: torch.device | str = "cpu", allocate: Allocate = allocate, *, quiet: bool = True
    ) -> tuple[Spine, list[B]]:
        """The spine as `load_spine` gives it, and load_layer(layer) of every layer: one set of threads, none of which waits in between."""
        layers: dict[int, B] = {}
        tensors: dict[str, Rows] = {}
        with opened(self.folder / SPINE_FILE) as descriptor:

            def load_one(job: int | list[str]) -> None:
                if isinstance(job, int):
                    layers[job] = load_layer(job)
                else:
                    tensors.update((name, self._rows(descriptor, device, allocate, name)) for name in job)

            jobs = [*range(self.manifest.spec.n_layers), *self._jobs(self._spine_names)]  # the smallest last: threads end together
            shared_out(load_one, tqdm(jobs, "loading", unit=" parts", disable=quiet))
        return self._spine(tensors), [layers[layer] for layer in range(self.manifest.spec.n_layers)]

    @property
    def _spine_names(self) -> list[str]:
        return [name for name in self.manifest.spine if not is_predictor(name)]

    def _spine(self, tensors: Mapping[str, Rows]) -> Spine:
        layers = [layer_spine(tensors, layer) for layer in range(self.manifest.spec.n_layers)]
        head = tensors["embed" if self.manifest.spec.tied_head else "head"]
        return Spine(_entrance(tensors), layers, _norm(tensors, "norm"), head, tensors.get("project_out"))

    def load_entrance(self, device: torch.device | str = "cpu") -> Entrance:
        names = [name for name in ("embed", "positions", "project_in") if name in self.manifest.spine]
        return _entrance(self._tensors(names, device, allocate))

    def load_layer_spine(self, layer: int, device: torch.device | str = "cpu") -> LayerSpine:
        names = [name for name in self.manifest.spine if name.startswith(f"layers.{layer}.") and not is_predictor(name)]
        return layer_spine(self._tensors(names, device, allocate), layer)

    def load_predictors(self, layer: int) -> list[Predictor]:
        """Those that came with the checkpoint, one per expert, in file order and in CPU memory; none when it has none."""
        names = [name for name in self.manifest.spine if name.startswith(f"layers.{layer}.") and is_predictor(name)]
        tensors = self._tensors(names, "cpu", allocate)
        pairs = ((tensors[f"layers.{layer}.experts.{expert}.{part}"] for part in (INWARD, OUTWARD)) for expert in self._experts(names))
        told = self.manifest.spec.predictors
        if told is None:
            return []
        threshold = ABOVE_ZERO if told.threshold is None else told.threshold
        return [Predictor(inward, outward, threshold, told.reads) for inward, outward in pairs]

    def _experts(self, names: Sequence[str]) -> range:
        return range(self.manifest.spec.n_experts if names else 0)

    def _tensors(self, names: Sequence[str], device: torch.device | str, take: Allocate) -> dict[str, Rows]:
        with opened(self.folder / SPINE_FILE) as descriptor:
            one = partial(self._rows, descriptor, device, take)
            loaded = shared_out(lambda some: [one(name) for name in some], self._jobs(names))
            return dict(zip(names, chain.from_iterable(loaded), strict=True))

    def _jobs(self, names: Sequence[str]) -> Iterator[list[str]]:
        """In their order, together JOB_BYTES at least: a norm by itself takes less time than handing it to a thread."""
        job, size = list[str](), 0
        for name in names:
            job.append(name)
            size += self.manifest.spine[name].nbytes
            if size >= JOB_BYTES:
                yield job
                job, size = [], 0
        if job:
            yield job

    def _rows(self, descriptor: int, device: torch.device | str, take: Allocate, name: str) -> Rows:
        stored = self.manifest.spine[name]
        data = take(stored.nbytes)
        read(descriptor, [contiguous(stored.offset, data)])
        return Rows.view(stored.format, stored.width, data.view(stored.rows, -1).to(device))

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
        spec, counts = self.manifest.spec, hot or [0] * self.manifest.spec.n_experts
        banks = [
            _BankMemory.of(bank_regions(spec, self.manifest.sizes, expert), counts[expert], allocate) for expert in range(spec.n_experts)
        ]
        places = [np.arange(spec.n_neurons) if order is None else inverse(order[expert].numpy()) for expert in range(spec.n_experts)]
        with opened(self.folder / layer_file(layer)) as descriptor:
            read(descriptor, [span for bank, place in zip(banks, places, strict=True) for span in bank.spans(place)])
        masks: Sequence[Predictor | None] = self.load_predictors(layer) if spec.masked else [None] * spec.n_experts
        if order is not None:
            masks = [mask and mask[order[expert]] for expert, mask in enumerate(masks)]
        return [self._parted(bank, mask, hot_device) for bank, mask in zip(banks, masks, strict=True)]

    def _parted(self, bank: "_BankMemory", mask: Predictor | None, hot_device: torch.device | str) -> tuple[NeuronBank, NeuronBank]:
        """Hot and cold bank of one expert, each with its neurons' rows of the mask."""
        cut = len(bank.hot[0])
        hot, cold = (None, None) if mask is None else (mask[:cut].to(hot_device), mask[cut:])
        return self._bank([part.to(hot_device) for part in bank.hot], hot), self._bank(bank.cold, cold)

    def _bank(self, records: Sequence[Tensor], mask: Predictor | None) -> NeuronBank:
        """A bank over records: gate [n, g], up|down [n, u + d], biases [n, 4]; a record of no bytes stands for what is not there."""
        gate, both, gate_bias, up_bias = records
        name, k, up_bytes = self.manifest.formats.neurons, self.manifest.spec.hidden, self.manifest.sizes.up_row
        return NeuronBank(
            gate=Rows.view(name, k, gate) if gate.shape[1] else None,
            up=Rows.view(name, k, both[:, :up_bytes]),
            down=Rows.view(name, k, both[:, up_bytes:]),
            gate_bias=gate_bias.view(torch.float32)[:, 0] if gate_bias.shape[1] else None,
            up_bias=up_bias.view(torch.float32)[:, 0] if up_bias.shape[1] else None,
            mask=mask,
        )


def check_agrees(manifest: Manifest, path: Path) -> None:
    """Raises BadArtefact unless the bytes and tensors a manifest counts are those of the model it describes."""
    if manifest.sizes != computed_sizes(manifest.spec, manifest.formats):
        raise BadArtefact(path, "its sizes are not those of its model", REMEDY)
    for name, shape in spine_tensors(manifest.spec, manifest.formats):
        stored = manifest.spine.get(name)
        if stored is None or (stored.format, stored.rows, stored.width) != (shape.format, shape.rows, shape.width):
            raise BadArtefact(path, f"its tensor {name!r} is not that of its model", REMEDY)


Places = np.ndarray[Any, np.dtype[np.int64]]


def inverse(order: Places) -> Places:
    """int64 [n]: where each of the things that `order` names comes to stand. By NumPy: torch would wake threads of its own for it."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place


@dataclass(frozen=True, slots=True)
class _BankMemory:
    """Where the records of a bank's regions go: of each one uint8 [hot, record] and uint8 [n - hot, record], in CPU memory."""

    regions: Sequence[Region]
    hot: Sequence[Tensor]
    cold: Sequence[Tensor]

    @classmethod
    def of(cls, regions: BankRegions, hot: int, take: Allocate) -> "_BankMemory":
        parts = regions.parts
        return cls(parts, [_records(part, hot, allocate) for part in parts], [_records(part, part.count - hot, take) for part in parts])

    def spans(self, place: Places) -> Iterator[Span]:
        """Neuron i of the file goes to place[i]: to the hot ones, then to the cold ones."""
        for region, hot, cold in zip(self.regions, self.hot, self.cold, strict=True):
            if region.nbytes == 0:
                continue
            places = place * region.record_bytes
            addresses = places + (cold.data_ptr() - len(hot) * region.record_bytes)
            if len(hot):
                addresses = np.where(place < len(hot), places + hot.data_ptr(), addresses)
            yield scattered(region.offset, region.record_bytes, addresses)


def _records(region: Region, count: int, take: Allocate) -> Tensor:
    return take(count * region.record_bytes).view(count, region.record_bytes)


def layer_spine(tensors: Mapping[str, Rows], layer: int) -> LayerSpine:
    """The tensors of one layer, by their names in the manifest."""
    at = f"layers.{layer}"
    attention_norm = _norm(tensors, f"{at}.attention_norm")
    assert attention_norm is not None
    return LayerSpine(
        attention_norm=attention_norm,
        qkv=tensors[f"{at}.qkv"],
        qkv_bias=_optional(tensors, f"{at}.qkv_bias"),
        o=tensors[f"{at}.o"],
        o_bias=_optional(tensors, f"{at}.o_bias"),
        ffn_norm=_norm(tensors, f"{at}.ffn_norm"),
        down_bias=_optional(tensors, f"{at}.down_bias"),
        q_norm=_optional(tensors, f"{at}.q_norm"),
        k_norm=_optional(tensors, f"{at}.k_norm"),
        router=tensors.get(f"{at}.router"),
    )


def _entrance(tensors: Mapping[str, Rows]) -> Entrance:
    return Entrance(tensors["embed"], tensors.get("positions"), tensors.get("project_in"))


def _norm(tensors: Mapping[str, Rows], name: str) -> Norm | None:
    return Norm(_vector(tensors, name), _optional(tensors, f"{name}_bias")) if name in tensors else None


def _vector(tensors: Mapping[str, Rows], name: str) -> Tensor:
    return tensors[name].decode()[0]


def _optional(tensors: Mapping[str, Rows], name: str) -> Tensor | None:
    return _vector(tensors, name) if name in tensors else None
