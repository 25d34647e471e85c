"""The whole command on a small shape: with nobody to compare with, and refusing what it does not know."""

import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks import contest, versus
from benchmarks.contest import Contender
from benchmarks.ours import load
from benchmarks.probe import Probe
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import SEED
from models.packed import PackedModel
from tests.benchmarks.test_synthetic import SMALL


class InThisProcess:
    """A Worker that starts no process: the shape is small, and known here alone."""

    def __init__(self, build: "partial[tuple[Contender, object]]") -> None:
        _shape, folder, threads = build.args
        self.contender = load(PackedModel.open(folder), threads, predictor_seed=SEED)
        self.run, self.facts, self.idle_cpu_seconds = self.contender.run, self.contender.facts, 0.0

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_without_a_peer_our_side_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SHAPES, "1.1b", SMALL)
    monkeypatch.setattr(versus, "Worker", InThisProcess)
    monkeypatch.setattr(versus, "peer_missing", lambda: ["llama_cpp"])
    monkeypatch.setattr(Probe, "bytes_per_second", lambda self: 1e13)  # so that no cache is faster
    monkeypatch.setattr(contest, "SETTLE_SECONDS", 0.0)
    command = "--shape 1.1b --only decode,predictor,batch --tokens 4 --rounds 2 --threads 1 --work".split()
    assert versus.main([*command, str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no peer")
    rows = {row["what"]: row for row in json.loads(lines[-1])["rows"]}
    for mode in ("dense", "exact", "predictor"):
        assert 0 < rows[f"{mode} decode, share of bandwidth"]["reached"] < 1
    assert rows["exact decode ÷ llama.cpp"]["values"] == []
    assert any("no peer" in line for line in lines[1:-1])


def test_a_part_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert versus.main(["--only", "decode,colour"]) == 2
    assert "colour" in capsys.readouterr().err
