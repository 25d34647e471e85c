"""Where our files live, and how one is written whole or not at all. One of the two files that read the environment."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import DiskFilled, DoesNotFit

BUNDLED_MODEL = Path(__file__).parent / "bundled"
BUNDLED_NAME = "bundled"


def home() -> Path:
    """Packed models, profiles, plans: `$THERMOCLINE_HOME`, else `$XDG_CACHE_HOME/thermocline`, else `~/.cache/thermocline`."""
    if chosen := os.environ.get("THERMOCLINE_HOME"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "thermocline"


def pulled_folder(repo: str) -> Path:
    """Where `models pull owner/name` puts links to what it fetched."""
    return home() / "pulled" / repo


def settled(path: Path) -> Path:
    """Absolute. A link to a file keeps its name: a hub's cache links `model-00001-of-00002.gguf` to a file that is called by its hash."""
    return path.parent.resolve() / path.name if path.is_file() else path.resolve()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it when the block succeeds, removes it when it does not.

    A full disk becomes DiskFilled. The file is synced before it gets its real name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            written = part.stat().st_size if part.exists() else 0
            raise DiskFilled(path.parent, written) from None
        raise
    finally:
        part.unlink(missing_ok=True)


def check_disk(folder: Path, need_bytes: int) -> None:
    """Raises DoesNotFit when the disk that holds `folder` has fewer than `need_bytes` free."""
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise DoesNotFit("disk", need_bytes, free_bytes, f"free some space under {folder}, or set THERMOCLINE_HOME to another disk")
