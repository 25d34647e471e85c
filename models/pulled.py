"""Pulled models: folders of links, by owner/name, into the cache of a hub's library, whose files they stay. Torch-free."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import BadValue
from models.paths import home


@dataclass(frozen=True, slots=True)
class Pulled:
    """`repo`: owner/name, by which every command knows it."""

    repo: str
    folder: Path

    @property
    def links(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_symlink() or path.is_file())

    @property
    def nbytes(self) -> int:
        """Of the files that the links lead to."""
        return sum(path.stat().st_size for path in self.links if path.is_file())

    @property
    def missing(self) -> int:
        """Links that lead nowhere: the cache was cleared."""
        return sum(not path.exists() for path in self.links)

    @property
    def where(self) -> Path:
        """The folder that holds the files themselves."""
        return self.links[0].resolve().parent if self.links else self.folder


def pulled_models() -> Iterator[Pulled]:
    """Every one, by name. What begins with a dot is a pull that was not finished."""
    shelf = home() / "pulled"
    for folder in sorted(shelf.glob("*/*") if shelf.is_dir() else []):
        if folder.is_dir() and not folder.name.startswith("."):
            yield Pulled(f"{folder.parent.name}/{folder.name}", folder)


def forget(repo: str) -> Path:
    """Deletes the links, and says where the files stay: in the cache, which other programs use too. BadValue when there are none."""
    for pulled in pulled_models():
        if pulled.repo == repo:
            kept = pulled.where
            shutil.rmtree(pulled.folder)
            if not any(pulled.folder.parent.iterdir()):
                pulled.folder.parent.rmdir()
            return kept
    raise BadValue("NAME", repo, "was not pulled; `models list` shows what was")
