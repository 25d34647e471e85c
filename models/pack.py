"""Packing: a checkpoint of any size, streamed into neuron-major storage. Bounded memory, resumable, whole or not at all.

A packed folder holds `spine.bin`, one `layer-NNNN.bin` a layer, the tokenizer's files, and `manifest.json`, which is
written last: a folder without it is unfinished, and packing again goes on from the layers that are there.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from models.architectures import check_format
from models.bits import FormatName
from models.checkpoint.base import Checkpoint
from models.checkpoint.opened import open_foreign
from models.errors import BadArtefact
from models.layout import MANIFEST_FILE, SPINE_FILE, is_predictor, layer_bytes, layer_file
from models.library import LOCK_FILE, check_asked_format, find, is_packed, shelf
from models.manifest import REMEDY, VERSION, Formats, Manifest, Sizes, StoredTensor, computed_sizes
from models.older_tokenizer import read_older
from models.pack_files import Encode, encode_plainly, spine_end, spine_places, write_layer, write_spine
from models.packed import PackedModel
from models.paths import check_disk, settled, whole_file
from models.reading import shared_out
from models.tokenizer import TOKENIZER_FILE

Part = int | None  # of a model: a layer, or the spine

CARRIED = (TOKENIZER_FILE, "tokenizer_config.json", "chat_template.jinja", "config.json", "generation_config.json")
LAYOUT_FILE = "layout-version"
MOST_NAME = 50  # characters of a source folder that a packed one is named after: a file name has 255 bytes


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


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Chunks are what runs in parallel; an operation that calls for threads itself would have them compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
