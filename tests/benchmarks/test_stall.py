"""The benchmark of what a long prompt does to a stream, on a small shape."""

import json
from pathlib import Path

import pytest

from benchmarks import stall
from benchmarks.shapes import SHAPES
from tests.benchmarks.test_synthetic import SMALL


@pytest.mark.parametrize("flags", [[], ["--free"]])
def test_it_ends_in_one_json_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    monkeypatch.setitem(SHAPES, "1.1b", SMALL)
    monkeypatch.setattr(stall, "set_threads", lambda: 1)
    assert stall.main(["--prompt", "700", "--stall-ms", "1", "--work", str(tmp_path), *flags]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["stall_ms"] == (None if flags else 1)
    assert last["prompt_tokens_per_second"] > 0
    for part in ("alone", "meanwhile"):
        assert 0 < last[part]["median_ms"] <= last[part]["p95_ms"] <= last[part]["longest_ms"]
