"""Small models here too: see tests/models/conftest.py."""

from tests.models.conftest import one_torch_thread

__all__ = ["one_torch_thread"]
