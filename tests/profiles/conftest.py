"""Small packed checkpoints, each made once for all tests that read it."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch

from models.bits import FormatName
from models.checkpoint.safetensors import open_safetensors
from models.pack import pack
from models.packed import PackedModel
from tests.checkpoints import make_variant

PackedOf = Callable[[str, FormatName], PackedModel]


@pytest.fixture(scope="package", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Matrices this small cost more to share out than to multiply."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def packed_of(tmp_path_factory: pytest.TempPathFactory) -> PackedOf:
    """Name of a variant and of a format -> the packed model. Read only."""
    home = tmp_path_factory.mktemp("packed")

    @cache
    def make(name: str, format_name: FormatName) -> PackedModel:
        folder = home / f"{name}-{format_name}"
        pack(open_safetensors(make_variant(home / f"{name}-source-{format_name}", name)), folder, format_name, quiet=True)
        return PackedModel.open(folder)

    return make
