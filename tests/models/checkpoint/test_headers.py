"""Reading pieces of a file: what comes next is asked of the disk before it is read."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from models.checkpoint import headers
from models.checkpoint.headers import read_exactly

AHEAD = 64


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First and last byte of what the system was asked for."""
    ranges: list[tuple[int, int]] = []

    def advise(descriptor: int, offset: int, count: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        ranges.append((offset, offset + count))

    monkeypatch.setattr(headers, "AHEAD_BYTES", AHEAD)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    return ranges


@pytest.mark.parametrize("piece", [1, 16, 40, 64, 100, 300])
def test_a_file_read_in_pieces_is_asked_for_before_it_is_read(piece: int, tmp_path: Path, asked: list[tuple[int, int]]) -> None:
    data = os.urandom(1000)
    (tmp_path / "file").write_bytes(data)
    for offset in range(0, 1000, piece):
        known = max((end for _, end in asked), default=0)
        count = min(piece, 1000 - offset)
        assert read_exactly(tmp_path / "file", offset, count) == data[offset : offset + count]
        if offset >= AHEAD and piece <= AHEAD:
            assert known >= offset + count, "by an earlier piece"
    assert all(one < other for (_, one), (_, other) in pairwise(asked)), "nothing twice in full"
    assert len(asked) <= 1000 / min(max(piece, AHEAD), 1000) + 1


def test_a_large_piece_is_asked_for_itself(tmp_path: Path, asked: list[tuple[int, int]]) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    read_exactly(tmp_path / "file", 10, 500)
    assert asked == [(10, 510 + 2 * AHEAD)]


def test_a_system_that_cannot_be_asked_reads_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "AHEAD_BYTES", AHEAD)
    monkeypatch.delattr(os, "posix_fadvise")
    (tmp_path / "file").write_bytes(bytes(1000))
    assert read_exactly(tmp_path / "file", 0, 1000) == bytes(1000)
