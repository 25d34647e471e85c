"""Bytes of a file, each where it was wanted: any sizes, cut anywhere, short reads included."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from threading import Event, get_ident

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import reading
from models.errors import BadArtefact
from models.reading import READERS, contiguous, opened, read, scattered, shared_out

OFFSET = 3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reading") / "bytes"
    path.write_bytes(np.random.default_rng(0).bytes(3 * reading.RUN_BYTES + 17))
    return path


def stored(file: Path, count: int) -> torch.Tensor:
    return torch.from_numpy(np.fromfile(file, np.uint8, count, offset=OFFSET))


@given(n=st.integers(0, 3000), width=st.integers(0, 70), seed=st.integers(0, 99))
def test_every_row_goes_to_its_place(n: int, width: int, seed: int, file: Path) -> None:
    place = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    got = torch.zeros(n, width, dtype=torch.uint8)
    with opened(file) as descriptor:
        read(descriptor, [scattered(OFFSET, width, got.data_ptr() + place.numpy() * width)])
    assert torch.equal(got[place], stored(file, n * width).view(n, width))


@pytest.mark.parametrize("count", [0, 1, reading.RUN_BYTES, 2 * reading.RUN_BYTES + 1])
def test_one_piece_of_memory_is_filled_from_end_to_end(count: int, file: Path) -> None:
    got = torch.zeros(count, dtype=torch.uint8)
    with opened(file) as descriptor:
        read(descriptor, [contiguous(OFFSET, got)])
    assert torch.equal(got, stored(file, count))


@given(most=st.integers(1, 200))
def test_a_call_that_stops_early_is_gone_on_with(most: int, file: Path) -> None:
    """A system may read less than it was asked for, and stop within a row."""
    got, place = torch.zeros(40, 9, dtype=torch.uint8), torch.arange(40).flip(0)

    def short(descriptor: int, pieces: int, count: int, offset: int) -> int:
        asked = np.ctypeslib.as_array(ctypes.cast(pieces, ctypes.POINTER(ctypes.c_uint64)), (count, 2)).copy()
        before = asked[:, 1].cumsum() - asked[:, 1]
        asked[:, 1] = np.minimum(asked[:, 1], np.maximum(most, before) - before)
        return int(preadv(descriptor, asked.ctypes.data, count, offset))

    preadv = reading._preadv
    with pytest.MonkeyPatch.context() as patch, opened(file) as descriptor:
        patch.setattr(reading, "_preadv", short)
        read(descriptor, [scattered(OFFSET, 9, got.data_ptr() + place.numpy() * 9)])
    assert torch.equal(got[place], stored(file, 360).view(40, 9))


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(100))
    got = torch.zeros(8, 32, dtype=torch.uint8)
    with opened(tmp_path / "short") as descriptor, pytest.raises(BadArtefact, match="short: became shorter"):
        read(descriptor, [scattered(0, 32, got.data_ptr() + np.arange(8) * 32)])


def test_what_the_system_refuses_is_an_error(tmp_path: Path) -> None:
    with opened(tmp_path) as descriptor, pytest.raises(IsADirectoryError):
        read(descriptor, [contiguous(0, torch.zeros(1, dtype=torch.uint8))])


def test_shared_out_jobs_come_back_in_their_order_though_each_thread_takes_the_next() -> None:
    """Every other job waits for its neighbour, so two threads have to be at work."""
    gates, workers = [Event() for _ in range(4)], set[int]()

    def load(job: int) -> int:
        workers.add(get_ident())
        if job % READERS == 0:
            assert gates[job + 1].wait(10)
        gates[job].set()
        return job * job

    assert shared_out(load, range(4)) == [0, 1, 4, 9]
    assert get_ident() in workers, "the caller works too"
    assert len(workers) == READERS


def test_no_jobs_are_soon_shared_out() -> None:
    assert shared_out(str, range(0)) == []


@pytest.mark.parametrize("failing", range(4))
def test_a_shared_out_job_that_fails_is_heard_and_ends_the_taking(failing: int) -> None:
    begun: list[int] = []

    def load(job: int) -> float:
        begun.append(job)
        return 1 / (failing - job)

    with pytest.raises(ZeroDivisionError):
        shared_out(load, range(10_000))
    assert failing in begun
    assert len(begun) < 10_000


def test_jobs_that_cannot_be_made_are_heard() -> None:
    def jobs() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError):
        shared_out(str, jobs())
