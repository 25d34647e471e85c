"""The packing benchmark writes a source that can be packed, and its JSON line says what that took."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.packing import BUFFER_BYTES, bytes_in, main, write_source, write_synced
from benchmarks.shapes import SHAPES, TINY_LLAMA
from models.checkpoint.safetensors import open_safetensors
from models.spec import Rope

SMALL = replace(TINY_LLAMA, hidden=64, head_dim=2, n_neurons=96, vocab=100, rope=Rope(10000.0, 2))


def test_its_line_holds_packing_against_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "1.1b", SMALL)
    assert main(["--layers", "2", "--rounds", "1", "--work", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["source_bytes"] == bytes_in(tmp_path / "source-1.1b-2")
    assert 0.25 * told["source_bytes"] < told["packed_bytes"] < told["source_bytes"]
    assert all(told[f"{name}_seconds"] >= 0 for name in ("read", "write", "cold", "warm"))
    assert [path.name for path in tmp_path.iterdir()] == ["source-1.1b-2"], "what was packed is removed"


def test_a_source_is_a_checkpoint_of_its_shape_and_written_once(tmp_path: Path) -> None:
    folder = write_source(SMALL, 3, tmp_path / "source")
    assert open_safetensors(folder).spec == replace(SMALL, n_layers=3)
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert (write_source(SMALL, 3, folder) / "config.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("count", [0, 5, BUFFER_BYTES, BUFFER_BYTES + 1])
def test_as_many_bytes_are_written_as_asked(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    write_synced(tmp_path / "file", count)
    assert sizes == [count]
    assert not (tmp_path / "file").exists()
