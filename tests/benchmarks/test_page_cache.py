"""A file that was dropped from the page cache has to come from the disk."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.page_cache import forget


def is_cached(path: Path) -> bool:
    """Whether the first page can be read without waiting for the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT) == 4096
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def test_what_was_just_written_is_forgotten(tmp_path: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout.strip()
    if kind == "tmpfs":
        pytest.skip("there is no disk below")
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    assert is_cached(tmp_path / "file")
    forget([tmp_path / "file"])
    assert not is_cached(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == bytes(1 << 20)
