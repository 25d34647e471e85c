"""The profile of a decode step, end to end on a small shape."""

import json
from pathlib import Path

import pytest

from benchmarks import contest, step
from benchmarks.shapes import SHAPES
from tests.benchmarks.test_synthetic import SMALL


def test_it_tells_every_kernel_and_ends_in_one_json_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "1.1b", SMALL)
    monkeypatch.setattr(step, "set_threads", lambda: 1)
    monkeypatch.setattr(step, "probe", lambda: lambda: 2e9)
    monkeypatch.setattr(contest, "SETTLE_SECONDS", 0.0)
    assert step.main(["--shape", "1.1b", "--work", str(tmp_path), "--tokens", "4", "--context", "5"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    calls = {line.split()[-1]: int(line.split("in")[1].split()[0]) for line in table if " calls " in line}
    layers = SMALL.n_layers
    assert calls == {"linear": 2 * layers + 1, "norm": 2 * layers + 1, "quantise": 3 * layers + 1, "add": 2 * layers} | dict.fromkeys(
        ("attend", "ffn"), layers
    ) | dict.fromkeys(("embed", "angles", "take"), 1)
    found = json.loads(last)
    assert found["layers"] == layers
    assert min(found[name] for name in ("step", "kernels", "python_before", "python_after", "engine", "bytes_at_roofline")) > 0
