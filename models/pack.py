"""Packing: a checkpoint of any size, streamed into neuron-major storage. Bounded memory, resumable, whole or not at all.

A packed folder holds `spine.bin`, one `layer-NNNN.bin` a layer, the tokenizer's files, and `manifest.json`, which is
written last: a folder without it is unfinished, and packing again goes on from the layers that are there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from models.architectures import check_format
from models.bits import FormatName
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
from models.reading import shared_out
from models.rows import Rows
from models.spec import ModelSpec
from models.tokenizer import TOKENIZER_FILE

Part = int | None  # of a model: a layer, or the spine
Encode = Callable[[FormatName, Tensor], Tensor]  # floating rows [n, k], or columns in one piece -> uint8 records [n, row_bytes]

CHUNK_WEIGHTS = 1 << 19  # weights read and encoded by one thread at a time; a few such chunks wait to be written
CARRIED = (TOKENIZER_FILE, "tokenizer_config.json", "chat_template.jinja", "config.json", "generation_config.json")
LAYOUT_FILE = "layout-version"
MOST_NAME = 50  # characters of a source folder that a packed one is named after: a file name has 255 bytes


def encode_plainly(name: FormatName, weights: Tensor) -> Tensor:
    """As the formats define it. `cpu_ops.encode` has kernels that give the same bits, and who stands above both hands them in."""
    return Rows.encode(name, weights.contiguous()).records()


def packed(model: str, name: FormatName | None = None, *, encode: Encode = encode_plainly, quiet: bool = False) -> PackedModel:
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
        pack(checkpoint, target, chosen, encode=encode, quiet=quiet)
    return PackedModel.open(target)


def packed_name(name: str, fingerprint: str, format_name: FormatName) -> str:
    kept = "".join(letter if letter.isprintable() else "-" for letter in name[:MOST_NAME])
    return f"{kept}-{fingerprint[:12]}-{format_name}"


def pack(checkpoint: Checkpoint, target: Path, name: FormatName, *, encode: Encode = encode_plainly, quiet: bool = False) -> None:
    """Writes `target`. DoesNotFit when the disk is too small, before anything is written or when it fills."""
    check_format(checkpoint.spec, name)
    sizes = computed_sizes(checkpoint.spec, Formats.of(name))
    draft, texts = _manifest(checkpoint, name, sizes, spine_places(checkpoint.spec, Formats.of(name))), made_texts(checkpoint)
    target.mkdir(parents=True, exist_ok=True)
    with only_packer(target), single_threaded_torch():
        if is_packed(target):
            return  # by whoever held the lock before us
        clear_leftovers(target)
        missing = missing_parts(target, draft)
        check_disk(target, sum(part_bytes(draft, part) for part in missing) + (1 << 20))
        with tqdm(total=len(missing), desc=f"packing {draft.name} as {name}", unit="layer", disable=quiet) as bar:
            shared_out(partial(_write_part, checkpoint, draft, target, encode, bar), missing)
        for carried in CARRIED:
            if (checkpoint.folder / carried).is_file():
                with whole_file(target / carried) as part:
                    shutil.copyfile(checkpoint.folder / carried, part)
        for kept, text in texts.items():
            with whole_file(target / kept) as part:
                part.write_text(text, encoding="utf-8")
        manifest = _manifest(checkpoint, name, counted_sizes(target, draft), draft.spine)
        with whole_file(target / MANIFEST_FILE) as part:
            part.write_text(manifest.model_dump_json(indent=1) + "\n")


def missing_parts(target: Path, draft: Manifest) -> list[Part]:
    """What is not yet there, the spine first: it takes longest, and threads shall end together."""
    spine: list[Part] = [] if (target / SPINE_FILE).is_file() else [None]
    return spine + [layer for layer in range(draft.spec.n_layers) if not (target / layer_file(layer)).is_file()]


def part_bytes(draft: Manifest, part: Part) -> int:
    return spine_end(draft.spine) if part is None else layer_bytes(draft)


def _write_part(checkpoint: Checkpoint, draft: Manifest, target: Path, encode: Encode, bar: "tqdm[NoReturn]", part: Part) -> None:
    """A layer's file, or the spine's, on one thread, while another writes the next.

    Parts of a millisecond cannot be handed from thread to thread; and while one waits for the disk, the other computes.
    """
    if part is None:
        write_spine(checkpoint, draft.spine, target / SPINE_FILE, encode)
    else:
        write_layer(checkpoint, draft, part, target / layer_file(part), encode)
    with bar.get_lock():
        bar.update()


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
    """Removes the temporary files of a killed run, and what an older program laid out differently."""
    version = target / LAYOUT_FILE
    stale = version.is_file() and version.read_text() != str(VERSION)
    for path in [*target.glob(".*.part"), *(target.glob("*.bin") if stale else [])]:
        path.unlink()
    with whole_file(version) as part:
        part.write_text(str(VERSION))


def counted_sizes(target: Path, draft: Manifest) -> Sizes:
    """The computed sizes, once the files on disk have been found to agree with them; BadArtefact when they do not."""
    wanted = {SPINE_FILE: part_bytes(draft, None)} | {layer_file(layer): part_bytes(draft, layer) for layer in range(draft.spec.n_layers)}
    for name, count in wanted.items():
        path = target / name
        if path.stat().st_size != count:
            raise BadArtefact(path, f"has {path.stat().st_size} bytes, should have {count}", REMEDY)
    total = {"embedding": 0, "spine": 0, "positions": 0, "predictors": 0}
    for name, tensor in draft.spine.items():
        total[class_of(name)] += tensor.nbytes
    return draft.sizes.model_copy(update=total)


def class_of(name: str) -> str:
    """The field of Sizes that a stored tensor counts for."""
    if is_predictor(name):
        return "predictors"
    return {"embed": "embedding", "head": "embedding", "positions": "positions"}.get(name, "spine")


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


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Chunks are what runs in parallel; an operation that calls for threads itself would have them compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
