"""Packing: a checkpoint of any size, streamed into neuron-major storage. Bounded memory, resumable, whole or not at all.

A packed folder holds `spine.bin`, one `layer-NNNN.bin` a layer, the tokenizer's files, and `manifest.json`, which is
written last: a folder without it is unfinished, and packing again goes on from the layers that are there.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor
from tqdm import tqdm

from models.architectures import check_format
from models.bits import BITS, FormatName
from models.checkpoint.base import Checkpoint
from models.checkpoint.opened import open_foreign
from models.errors import BadArtefact
from models.layout import (
    ALIGNMENT,
    MANIFEST_FILE,
    SPINE_FILE,
    Region,
    aligned,
    bank_regions,
    is_predictor,
    layer_bytes,
    layer_file,
    spine_tensors,
)
from models.library import LOCK_FILE, check_asked_format, find, is_packed, shelf
from models.manifest import REMEDY, VERSION, Formats, Manifest, Sizes, StoredTensor, computed_sizes
from models.older_tokenizer import read_older
from models.packed import PackedModel
from models.paths import check_disk, settled, whole_file
from models.reading import in_parallel
from models.rows import Rows
from models.tokenizer import TOKENIZER_FILE

CHUNK_WEIGHTS = 1 << 19  # weights read and encoded by one thread at a time; a few such chunks wait to be written
CARRIED = (TOKENIZER_FILE, "tokenizer_config.json", "chat_template.jinja", "config.json", "generation_config.json")
LAYOUT_FILE = "layout-version"
MOST_NAME = 50  # characters of a source folder that a packed one is named after: a file name has 255 bytes


def packed(model: str, name: FormatName | None = None, *, quiet: bool = False) -> PackedModel:
    """The packed form of `model`, made now if it is not there. `quiet` hides the progress bar."""
    folder = find(model)
    if is_packed(folder):
        found = PackedModel.open(folder)
        check_asked_format(found.manifest, name)
        return found
    checkpoint = open_foreign(folder)
    chosen = name or checkpoint.default_format
    target = shelf() / packed_name(folder.name, checkpoint.fingerprint, chosen)
    if not is_packed(target):
        pack(checkpoint, target, chosen, quiet=quiet)
    return PackedModel.open(target)


def packed_name(name: str, fingerprint: str, format_name: FormatName) -> str:
    kept = "".join(letter if letter.isprintable() else "-" for letter in name[:MOST_NAME])
    return f"{kept}-{fingerprint[:12]}-{format_name}"


def pack(checkpoint: Checkpoint, target: Path, name: FormatName, *, quiet: bool = False) -> None:
    """Writes `target`. DoesNotFit when the disk is too small, before anything is written or when it fills."""
    check_format(checkpoint.spec, name)
    sizes = computed_sizes(checkpoint.spec, Formats.of(name))
    draft, texts = _manifest(checkpoint, name, sizes, {}), made_texts(checkpoint)
    target.mkdir(parents=True, exist_ok=True)
    with only_packer(target), single_threaded_torch():
        if is_packed(target):
            return  # by whoever held the lock before us
        clear_leftovers(target)
        missing = [layer for layer in range(draft.spec.n_layers) if not (target / layer_file(layer)).is_file()]
        check_disk(target, draft.spine_bytes + len(missing) * layer_bytes(draft) + (1 << 20))
        with tqdm(total=len(missing) + 1, desc=f"packing {draft.name} as {name}", unit="layer", disable=quiet) as bar:
            for layer in missing:
                write_layer(checkpoint, draft, layer, target / layer_file(layer))
                bar.update()
            stored = write_spine(checkpoint, draft.formats, target / SPINE_FILE)
            bar.update()
        for carried in CARRIED:
            if (checkpoint.folder / carried).is_file():
                with whole_file(target / carried) as part:
                    shutil.copyfile(checkpoint.folder / carried, part)
        for kept, text in texts.items():
            with whole_file(target / kept) as part:
                part.write_text(text, encoding="utf-8")
        manifest = _manifest(checkpoint, name, counted_sizes(target, draft, stored), stored)
        with whole_file(target / MANIFEST_FILE) as part:
            part.write_text(manifest.model_dump_json(indent=1) + "\n")


def _manifest(checkpoint: Checkpoint, name: FormatName, sizes: Sizes, spine: dict[str, StoredTensor]) -> Manifest:
    source = settled(checkpoint.folder)
    return Manifest(
        name=source.name.removesuffix(".gguf"),
        source=str(source),
        fingerprint=checkpoint.fingerprint,
        assumed=False,
        spec=checkpoint.spec,
        formats=Formats.of(name),
        sizes=sizes,
        spine=spine,
    )


def made_texts(checkpoint: Checkpoint) -> dict[str, str]:
    """Small files that are made, not carried along, by name: what a container keeps inside, a tokenizer.json of older files."""
    has_own = (checkpoint.folder / TOKENIZER_FILE).is_file()
    older = None if has_own else read_older(checkpoint.folder)
    return ({} if older is None else {TOKENIZER_FILE: older.to_str()}) | dict(checkpoint.texts())


@contextmanager
def only_packer(target: Path) -> Iterator[None]:
    """Holds a lock on the folder, so that a second process waits and then finds the work done."""
    with (target / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clear_leftovers(target: Path) -> None:
    """Removes the temporary files of a killed run, and layers that an older program laid out differently."""
    version = target / LAYOUT_FILE
    stale = version.is_file() and version.read_text() != str(VERSION)
    for path in [*target.glob(".*.part"), *(target.glob("layer-*.bin") if stale else [])]:
        path.unlink()
    with whole_file(version) as part:
        part.write_text(str(VERSION))


def counted_sizes(target: Path, draft: Manifest, stored: dict[str, StoredTensor]) -> Sizes:
    """The computed sizes, once the files on disk have been found to agree with them; BadArtefact when they do not."""
    for layer in range(draft.spec.n_layers):
        path = target / layer_file(layer)
        if path.stat().st_size != layer_bytes(draft):
            raise BadArtefact(path, f"has {path.stat().st_size} bytes, should have {layer_bytes(draft)}", REMEDY)
    total = {"embedding": 0, "spine": 0, "positions": 0, "predictors": 0}
    for name, tensor in stored.items():
        total[class_of(name)] += tensor.rows * BITS[tensor.format].row_bytes(tensor.width)
    return draft.sizes.model_copy(update=total)


def class_of(name: str) -> str:
    """The field of Sizes that a stored tensor counts for."""
    if is_predictor(name):
        return "predictors"
    return {"embed": "embedding", "head": "embedding", "positions": "positions"}.get(name, "spine")


def write_layer(checkpoint: Checkpoint, draft: Manifest, layer: int, path: Path) -> None:
    """One layer file: every expert's gate region, its up|down region, its biases."""
    spec, name = checkpoint.spec, draft.formats.neurons
    with whole_file(path) as part, part.open("wb") as file:
        for expert in range(spec.n_experts):
            base = f"layers.{layer}.experts.{expert}"
            regions = bank_regions(spec, draft.sizes, expert)
            if regions.gate.nbytes:
                write_region(file, regions.gate, matrix_records(checkpoint, f"{base}.gate", name))
            write_region(file, regions.up_down, _up_down_records(checkpoint, base, name))
            for region, bias in ((regions.gate_bias, "gate_bias"), (regions.up_bias, "up_bias")):
                if region.nbytes:
                    write_region(file, region, iter([checkpoint.read(f"{base}.{bias}").view(torch.uint8)]))
            pad_to(file, regions.end)


def matrix_records(checkpoint: Checkpoint, name: str, format_name: FormatName) -> Iterator[Tensor]:
    """uint8 records [m, row_bytes] of a matrix, chunk by chunk."""

    def encode(chunk: tuple[int, int]) -> Tensor:
        return checkpoint.rows(name, format_name, *chunk).records()

    return in_parallel(encode, chunks(*checkpoint.shape(name)))


def _up_down_records(checkpoint: Checkpoint, base: str, name: FormatName) -> Iterator[Tensor]:
    down: Tensor | None = None  # [H, N], read when the files do not have its columns, which become our rows, in one piece
    if checkpoint.columns(f"{base}.down", name, 0, 0) is None:
        down = checkpoint.stored(f"{base}.down")

    def encode(chunk: tuple[int, int]) -> Tensor:
        up = checkpoint.rows(f"{base}.up", name, *chunk)
        turned = None if down is not None else checkpoint.columns(f"{base}.down", name, *chunk)
        if turned is None:
            assert down is not None
            turned = Rows.encode(name, down[:, slice(*chunk)].T.contiguous())
        return torch.cat((up.records(), turned.records()), dim=1)

    return in_parallel(encode, chunks(checkpoint.spec.n_neurons, checkpoint.spec.hidden))


def chunks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """start, stop of pieces of at most CHUNK_WEIGHTS weights."""
    step = max(1, CHUNK_WEIGHTS // width)
    return ((start, min(rows, start + step)) for start in range(0, rows, step))


def write_region(file: IO[bytes], region: Region, parts: Iterator[Tensor]) -> None:
    pad_to(file, region.offset)
    for records in parts:
        file.write(records.contiguous().numpy().data)
    assert file.tell() == region.offset + region.nbytes, (file.tell(), region)


def pad_to(file: IO[bytes], offset: int) -> None:
    gap = offset - file.tell()
    assert 0 <= gap < ALIGNMENT, gap
    file.write(bytes(gap))


def write_spine(checkpoint: Checkpoint, formats: Formats, path: Path) -> dict[str, StoredTensor]:
    """`spine.bin`, and where each tensor lies in it."""
    stored: dict[str, StoredTensor] = {}
    with whole_file(path) as part, part.open("wb") as file:
        for name, shape in spine_tensors(checkpoint.spec, formats):
            pad_to(file, aligned(file.tell()))
            stored[name] = StoredTensor(format=shape.format, rows=shape.rows, width=shape.width, offset=file.tell())
            for records in spine_records(checkpoint, sources_of(name), shape.format):
                file.write(records.numpy().data)
    return stored


def sources_of(name: str) -> tuple[str, ...]:
    """The checkpoint's tensors that a stored one is made of, one below the other."""
    layer, _, part = name.rpartition(".")
    joined = {"qkv": ("q", "k", "v"), "qkv_bias": ("q_bias", "k_bias", "v_bias")}
    return tuple(f"{layer}.{source}" for source in joined[part]) if part in joined else (name,)


def spine_records(checkpoint: Checkpoint, sources: tuple[str, ...], name: FormatName) -> Iterator[Tensor]:
    """uint8 records [m, row_bytes], chunk by chunk."""
    shapes = [checkpoint.shape(source) for source in sources]
    if len(shapes[0]) == 1:
        joined = torch.cat([checkpoint.read(source) for source in sources])
        yield Rows.encode(name, joined.unsqueeze(0)).records()
        return
    for source in sources:
        yield from matrix_records(checkpoint, source, name)


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Chunks are what runs in parallel; an operation that calls for threads itself would have them compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
