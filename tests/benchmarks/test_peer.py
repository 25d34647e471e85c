"""The file written for the peer opens there and computes; without its packages their names are said."""

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks import peer
from benchmarks.contest import Task
from benchmarks.gguf_file import tensor_bytes, write_gguf
from benchmarks.versus import build_peer
from benchmarks.worker import Worker
from tests.benchmarks.test_synthetic import SMALL

needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed")
needs_peer = pytest.mark.skipif(bool(peer.peer_missing()), reason="llama-cpp-python is not installed")


@needs_gguf
def test_the_file_holds_four_and_a_half_bits_a_weight_and_is_written_once(tmp_path: Path) -> None:
    path = write_gguf("small", SMALL, tmp_path / "small.gguf")
    assert tensor_bytes(SMALL) < path.stat().st_size < tensor_bytes(SMALL) + 100_000
    stamp = path.stat().st_mtime_ns
    assert write_gguf("small", SMALL, path).stat().st_mtime_ns == stamp


@needs_gguf
def test_a_file_of_other_shapes_under_the_name_is_written_again(tmp_path: Path) -> None:
    path = write_gguf("small", replace(SMALL, n_layers=2), tmp_path / "small.gguf")
    assert write_gguf("small", SMALL, path).stat().st_size > tensor_bytes(SMALL)


@needs_peer
def test_llama_cpp_opens_it_and_runs(tmp_path: Path) -> None:
    path = write_gguf("small", SMALL, tmp_path / "small.gguf")
    with Worker(partial(build_peer, path, 1)) as engine:  # in a process of its own, since the library leaves files open
        for sequences in (1, 3):
            run = engine.run(Task(8, 2, sequences))
            assert run.prompt_seconds > 0
            assert len(run.step_seconds) == 2


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert peer.peer_missing() == ["llama_cpp", "gguf"]
