"""The models a person has: the bundled one, folders they name, and what was packed from them. Torch-free."""

import fcntl
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.architectures import manifest_from_config, manifest_from_folder
from models.bits import FormatName
from models.checkpoint.gguf import is_gguf
from models.checkpoint.gguf_config import describe
from models.checkpoint.weights import has_weights
from models.errors import BadArtefact, BadCheckpoint, BadValue, Unavailable
from models.layout import MANIFEST_FILE
from models.manifest import Manifest, load_manifest
from models.paths import BUNDLED_MODEL, BUNDLED_NAME, home, pulled_folder, settled

LOCK_FILE = ".lock"  # held by whoever writes the folder it lies in
REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)  # owner/name, as hubs have them
DEFAULT_FORMAT: FormatName = "bf16"  # as near to the checkpoint as a fast format gets; smaller ones are asked for


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder under `home()/packed`. `manifest` is None when packing was not finished or the file is not ours."""

    folder: Path
    manifest: Manifest | None

    @property
    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


def shelf() -> Path:
    return home() / "packed"


def entries() -> Iterator[Entry]:
    """Every packed model, by name."""
    for folder in sorted(shelf().iterdir() if shelf().is_dir() else []):
        if folder.is_dir():
            try:
                yield Entry(folder, load_manifest(folder / MANIFEST_FILE))
            except BadArtefact:
                yield Entry(folder, None)


def find(model: str) -> Path:
    """'bundled', a folder, a file in it, or the name of a packed or pulled model -> the folder; a GGUF file stands for itself.

    BadCheckpoint when there is none.
    """
    if model == BUNDLED_NAME:
        return BUNDLED_MODEL
    path = Path(model)
    try:
        path = path.expanduser()
        if path.is_file():
            return _speakable(settled(path) if is_gguf(path) else path.parent.resolve())
        if path.is_dir():
            return _speakable(only_gguf(path) or path.resolve())
        if model and "/" not in model and (shelf() / model).is_dir():
            return shelf() / model
        if is_pulled(model):
            return only_gguf(pulled_folder(model)) or pulled_folder(model).resolve()
    except (OSError, RuntimeError) as error:  # a name too long, a home nobody has
        raise BadCheckpoint(path, f"cannot be looked up: {error}") from None
    raise BadCheckpoint(path, "is neither a model directory nor the name of a packed model (`models list` shows those) or of a pulled one")


def is_pulled(model: str) -> bool:
    """Whether it is the owner/name of a pulled repository; a folder or a file of that name comes first."""
    return REPO.fullmatch(model) is not None and not Path(model).exists() and pulled_folder(model).is_dir()


def only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder that has no model in another form; of shards, the first. BadCheckpoint when there are several."""
    if (folder / "config.json").is_file() or is_packed(folder):
        return None
    found = [path for path in sorted(folder.glob("*.gguf")) if "-of-" not in path.name or "-00001-of-" in path.name]
    if len(found) > 1:
        raise BadCheckpoint(folder, f"holds {len(found)} GGUF files; name one of them, like {found[0].name}")
    return settled(found[0]) if found else None


def _speakable(folder: Path) -> Path:
    """Our files are UTF-8, and name the folder; BadCheckpoint when its name is not."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        shown = str(folder).encode(errors="backslashreplace").decode()
        raise BadCheckpoint(Path(shown), "its path is not UTF-8; rename it") from None
    return folder


def is_packed(folder: Path) -> bool:
    return (folder / MANIFEST_FILE).is_file()


def known_manifest(model: str, name: FormatName | None = None) -> Manifest:
    """What is known without packing: a packed folder's manifest, else one bound to the weights' headers, else to the config."""
    folder = find(model)
    if is_packed(folder):
        manifest = load_manifest(folder / MANIFEST_FILE)
        check_asked_format(manifest, name)
        return manifest
    if folder.is_file():
        return describe(folder).manifest(name)
    make = manifest_from_folder if has_weights(folder) else manifest_from_config
    return make(folder, name or DEFAULT_FORMAT)


def check_asked_format(manifest: Manifest, name: FormatName | None) -> None:
    """A packed model is in the format it is in."""
    if name is not None and manifest.formats.neurons != name:
        raise BadValue(
            "--format", name, f"but {manifest.name} was packed as {manifest.formats.neurons}; name its source folder to pack again"
        )


def remove(name: str) -> Entry:
    """Deletes one packed model, by the name `models list` shows; BadValue when there is none, Unavailable while it is packed."""
    for entry in entries():
        if entry.folder.name == name:
            _delete(entry.folder)
            return entry
    raise BadValue("NAME", name, "is not a packed model; `models list` shows them")


def _delete(folder: Path) -> None:
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(folder.name, "is being packed by another process; stop that one first") from None
        shutil.rmtree(folder)
