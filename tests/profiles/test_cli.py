"""`profiles`, as it is typed, on a small random model."""

import os
import re
from pathlib import Path

import pytest

from profiles import cli
from profiles.cli import main
from profiles.firing import FiringProfile, load_profile, save_profile
from profiles.hardware import HardwareProfile, load_hardware
from tests.checkpoints import make_by_hand
from tests.profiles.making import make_profile
from tests.profiles.test_probe import CPU

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "text.txt").write_text("the neurons that fire together\n" * 40)
    return str(make_by_hand(tmp_path / "model", {"model_type": "llama"}))


def complaint(capsys: Capture) -> str:
    """The one line on stderr, progress bars aside."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_record_then_show(model: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["record", model, "--corpus", str(tmp_path / "text.txt"), "--tokens", "200"]) == 0
    recorded = capsys.readouterr().out
    assert "text.txt" in recorded
    (path,) = (tmp_path / "home" / "profiles").iterdir()
    assert load_profile(path).tokens == 200
    assert main(["show", model]) == 0
    shown = capsys.readouterr().out
    assert "2 layers × 96 neurons, 200 tokens" in shown
    assert path.with_suffix(".png").is_file()
    assert main(["show", str(path), "--png", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").is_file()


def test_every_packing_of_a_model_shares_its_profile(model: str, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "mine.safetensors"
    assert main(["record", model, "--corpus", str(tmp_path / "text.txt"), "--format", "int8", "-o", str(output)]) == 0
    assert main(["show", model]) == 2
    assert "record it with `profiles record" in complaint(capsys)
    assert main(["record", model, "--corpus", str(tmp_path / "text.txt"), "--format", "int4"]) == 0
    assert main(["show", model]) == 0
    (packed,) = (tmp_path / "home" / "packed").glob("*int8")
    assert main(["show", str(packed)]) == 0


def test_without_a_corpus_it_says_which_text_it_takes(model: str, capsys: Capture) -> None:
    assert main(["record", model, "--tokens", "300"]) == 0
    assert "the standard library of CPython" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on_and_going_on_ends_the_same(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    command = ["record", model, "--corpus", str(tmp_path / "text.txt"), "-o", str(tmp_path / "p.safetensors")]
    assert main(command) == 0
    whole = load_profile(tmp_path / "p.safetensors")

    def save_and_stop(profile: FiringProfile, path: Path) -> None:
        save_profile(profile, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("profiles.record.save_profile", save_and_stop)
        patch.setattr("profiles.pace.FIRST_TOKENS", 50)
        patch.setattr("profiles.corpus.CHUNK_TOKENS", 50)
        assert main(command) == 130
    assert "the same command goes on from there" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "p.safetensors.partial").is_file()
    with monkeypatch.context() as patch:
        patch.setattr("profiles.corpus.CHUNK_TOKENS", 50)
        assert main(command) == 0
    assert not (tmp_path / "p.safetensors.partial").exists()
    assert load_profile(tmp_path / "p.safetensors").tokens == whole.tokens


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["record", "{model}", "--corpus", "{tmp}/none.txt"], "none.txt' cannot be read"),
        (["record", "{model}", "--corpus", "{tmp}"], "is a folder"),
        (["record", "{model}", "--tokens", "0"], "--tokens: '0'"),
        (["record", "{model}", "-o", "{tmp}"], "--output: .* is a folder"),
        (["record", "{model}", "-o", "{tmp}/text.txt/p"], "--output: .* cannot be written"),
        (["record", "{tmp}/nowhere"], "nowhere"),
        (["show", "{tmp}/text.txt"], "is not a firing profile"),
        (["show", "{model}"], "no such file; record it with `profiles record"),
        (["show", "{tmp}/home"], "home"),
        (["hardware", "-o", "{tmp}"], "--output: .* is a folder"),
    ],
)
def test_a_mistake_is_one_line_and_code_two(model: str, tmp_path: Path, capsys: Capture, arguments: list[str], expected: str) -> None:
    (tmp_path / "home").mkdir()
    assert main([argument.format(model=model, tmp=tmp_path) for argument in arguments]) == 2
    assert re.search(expected, complaint(capsys))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(model: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert main(["record", model, "-o", str(tmp_path / "locked" / "p")]) == 2
    assert "no right to write" in complaint(capsys)


def test_a_profile_of_another_model_under_this_ones_name(model: str, tmp_path: Path, capsys: Capture) -> None:
    main(["record", model, "--corpus", str(tmp_path / "text.txt")])
    (path,) = (tmp_path / "home" / "profiles").iterdir()
    save_profile(make_profile(), path)
    capsys.readouterr()
    assert main(["show", model]) == 2
    assert "made from model 0123456789abcdef" in complaint(capsys)


def test_hardware_is_measured_told_and_kept(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    measured = HardwareProfile(gpu=None, cpu=CPU)
    monkeypatch.setattr(cli, "measure_hardware", lambda: measured)
    assert main(["hardware"]) == 0
    assert "Some CPU" in capsys.readouterr().out
    assert load_hardware(tmp_path / "home" / "hardware.json") == measured
    assert main(["hardware", "-o", str(tmp_path / "mine.json")]) == 0
    assert load_hardware(tmp_path / "mine.json") == measured
