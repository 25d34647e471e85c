"""Small checkpoints and their packed forms, each made once for all tests that read it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from models.bits import FormatName
from models.checkpoint.safetensors import open_safetensors
from models.pack import pack
from models.packed import PackedModel
from models.paths import BUNDLED_MODEL, BUNDLED_NAME
from tests.families import make_variant

CheckpointOf = Callable[[str], Path]
PackedOf = Callable[[str, FormatName], PackedModel]


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> CheckpointOf:
    """Name of a variant, or 'bundled' -> its folder. Read only."""
    home = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: BUNDLED_MODEL if name == BUNDLED_NAME else make_variant(home / name, name))


@pytest.fixture(scope="session")
def packed_of(tmp_path_factory: pytest.TempPathFactory, checkpoint_of: CheckpointOf) -> PackedOf:
    """Name of a variant, or 'bundled', and of a format -> the packed model. Read only."""
    home = tmp_path_factory.mktemp("packed")

    @cache
    def make(name: str, format_name: FormatName) -> PackedModel:
        pack(open_safetensors(checkpoint_of(name)), home / f"{name}-{format_name}", format_name, quiet=True)
        return PackedModel.open(home / f"{name}-{format_name}")

    return make
