"""The load benchmark runs, and its JSON line says what was kept."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.load import apart, in_turn, main, pieces, read_all, resident
from models.layout import layer_file
from models.library import known_manifest
from models.packed import PackedModel
from tests.conftest import PackedOf


@pytest.mark.parametrize("extra", [[], ["--cold", "--rounds", "1"]])
def test_its_last_line_is_json(
    extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path))
    assert main(["--shape", "bundled", "--format", "int8", *extra]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    manifest = known_manifest("bundled", "int8")
    assert result["kept_bytes"] == manifest.spine_bytes + manifest.neurons_bytes
    assert result["peak_bytes"] >= 0
    assert result["ready_over_read"] > 0


def test_layers_that_share_a_file_are_copied_apart_and_hold_the_same(tmp_path: Path, packed_of: PackedOf) -> None:
    for folder in ("shared", "apart"):
        (tmp_path / folder).mkdir()
    for path in packed_of("relu", "int4").folder.iterdir():
        first = path.with_name(layer_file(0)) if path.name.startswith("layer-0") else path
        (tmp_path / "shared" / path.name).hardlink_to(first)
    shared = PackedModel.open(tmp_path / "shared")
    copied = apart(shared, tmp_path / "apart")
    assert torch.equal(read_all(copied), read_all(shared))
    assert len({path.stat().st_ino for path in copied.folder.glob("layer-0*.bin")}) == shared.manifest.spec.n_layers > 1
    spine = sorted((offset, count) for path, offset, count in pieces(copied) if path.name == "spine.bin")
    assert all(offset + count <= following for (offset, count), (following, _) in pairwise(spine))


def test_each_turn_another_is_first() -> None:
    assert [in_turn("abc", turn) for turn in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]


def test_resident_memory_follows_what_is_touched() -> None:
    before = resident("VmRSS")
    touched = bytearray(b"x" * 50_000_000)
    assert resident("VmRSS") - before > 0.9 * len(touched)
