"""The abuse itself, for twenty seconds, and what several streams at once are told; on a small model, through a real server process."""

import json
from pathlib import Path

import pytest

from benchmarks import abuse, process, serving
from profiles.hardware import HardwareProfile, save_hardware
from profiles.shelf import hardware_path
from tests.families import make_variant
from tests.placement.makers import CPU
from tests.server.test_process import START


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(process, "START", START)
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
    (tmp_path / "tiny").mkdir()
    return str(make_variant(tmp_path / "tiny", "relu"))


@pytest.mark.slow
def test_twenty_seconds_of_abuse_do_no_harm(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert abuse.main(["--model", model, "--minutes", "0.33"]) == 0, capsys.readouterr().out
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ok"]
    assert found["text equal"] > 50
    assert found["status 400"] > 10


@pytest.mark.slow
def test_streams_at_once_are_measured(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serving, "PROMPT_CHARACTERS", 40)
    assert serving.main(["--model", model, "--streams", "1", "3", "--tokens", "8", "--rounds", "2"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["streams"] for row in last["found"]] == [1, 3]
    for row in last["found"]:
        least, most = row["first_token_range_ms"]
        assert 0 < least <= row["first_token_ms"] <= most
        assert row["tokens_per_second"] > 0


def test_growth_is_that_of_the_time_after_the_warm_up() -> None:
    """Ten megabytes that double in the warm-up, grow by five percent in the next nine minutes, and have one peak."""
    found = abuse.Found(ready=5_000_000)
    for second in range(600):
        size = 10_000_000 if second < 60 else 20_000_000 + 1_000_000 * (second - 60) // 540
        found.resident.append((second / 60, size + 50_000_000 * (second == 300)))
    memory = found.memory(1.0)
    assert memory.growth == pytest.approx(0.045, abs=0.002)  # from the middle of the first tenth to that of the last
    assert memory.told()["ready_mb"] == 5
    assert memory.told()["peak_mb"] == 70
    assert memory.told()["resident_mb"] == sorted(memory.told()["resident_mb"])
    assert found.memory(20.0).growth == 0


def test_a_level_is_no_growth() -> None:
    found = abuse.Found(resident=[(second / 60, 100) for second in range(20)])
    assert found.memory(0.0).growth == 0
    assert found.memory(0.1).growth == 0
