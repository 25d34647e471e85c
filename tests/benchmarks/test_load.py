"""The load benchmark runs, and its JSON line says what was kept."""

import json
from pathlib import Path

import pytest

from benchmarks.load import main, resident
from models.library import known_manifest


def test_its_last_line_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path))
    assert main(["--shape", "bundled", "--format", "int8"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    manifest = known_manifest("bundled", "int8")
    assert result["kept_bytes"] == manifest.spine_bytes + manifest.neurons_bytes
    assert result["layers"] == 6
    assert result["peak_bytes"] >= 0


def test_resident_memory_follows_what_is_touched() -> None:
    before = resident("VmRSS")
    touched = bytearray(b"x" * 50_000_000)
    assert resident("VmRSS") - before > 0.9 * len(touched)
