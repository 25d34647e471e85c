"""The command on a small shape; its table from runs that are given."""

import json
from pathlib import Path

import pytest

from benchmarks import batch, contest
from benchmarks.contest import Measured, Run, Task
from benchmarks.probe import Probe
from benchmarks.shapes import SHAPES
from tests.benchmarks.test_synthetic import SMALL


def test_every_size_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SHAPES, "1.1b", SMALL)
    monkeypatch.setattr(Probe, "bytes_per_second", lambda self: 1e10)
    monkeypatch.setattr(contest, "SETTLE_SECONDS", 0.0)
    command = ["--shape", "1.1b", "--sizes", "3", "1", "--tokens", "2", "--rounds", "2", "--work", str(tmp_path)]
    assert batch.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines if line[:3] in ("| 1", "| 3")] == ["| 1", "| 3"]
    speeds = json.loads(lines[-1])["tokens_per_second"]
    assert list(speeds) == ["ours"]
    assert all(speeds["ours"][size] > 0 for size in ("1", "3"))


def measured(sequences: int, seconds: float) -> Measured:
    return Measured(Task(16, 1, sequences, "exact"), Run(1.0, (seconds,)), 1e10)


def test_the_table_tells_gain_and_ratio_round_by_round() -> None:
    found = {
        "ours": {1: [measured(1, 0.1), measured(1, 0.2)], 4: [measured(4, 0.2), measured(4, 0.4)]},
        "llama.cpp": {1: [measured(1, 0.2), measured(1, 0.4)], 4: [measured(4, 0.4), measured(4, 0.8)]},
    }
    last = batch.render(found).splitlines()[-1]
    assert last == "| 4 | 15.0 | 10.0–20.0 | 2.00 | 266.7 | 7.5 | 2.00 |"


def test_no_sequences_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        batch.main(["--sizes", "0"])
    assert "--sizes" in capsys.readouterr().err
