"""What the server's tests share."""

import pytest

from models.tokenizer import Tokenizer
from tests.server.fakes import build_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))
