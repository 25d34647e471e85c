"""The command, as a person types it. No GPU, no weights; and no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from placement.artefact import load_placement
from placement.cli import main
from profiles.firing import save_profile
from profiles.shelf import profile_path
from tests.placement.makers import MACHINE, SPEC, profile_of

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "relu",
    "hidden_size": SPEC.hidden,
    "intermediate_size": SPEC.n_neurons,
    "num_hidden_layers": SPEC.n_layers,
    "num_attention_heads": SPEC.n_heads,
    "num_key_value_heads": SPEC.n_kv_heads,
    "vocab_size": SPEC.vocab,
    "max_position_embeddings": SPEC.context,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing but a config."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "toy"


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line a mistake is answered with."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_config_alone_is_enough_and_the_plan_is_marked_assumed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(model), "--vram", "4MB", "--format", "int8"]) == 0
    out = capsys.readouterr().out
    assert "the model: only its config.json was read" in out
    (plan,) = (model.parent / "home" / "plans").iterdir()
    assert str(plan) in out
    assert load_placement(plan).vram is not None


def test_the_config_file_itself_may_be_named(model: Path) -> None:
    assert main(["solve", str(model / "config.json"), "--vram", "4MB"]) == 0


def test_a_plan_shown_reads_as_it_did_when_it_was_made(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, picture = model / "plan.json", model / "plan.png"
    assert main(["solve", str(model), "--gpu", "rtx 3060", "--vram", "4MB", "-o", str(kept), "--picture", str(picture)]) == 0
    solved = capsys.readouterr().out
    assert picture.stat().st_size > 0
    assert main(["show", str(kept)]) == 0
    shown = capsys.readouterr().out
    assert solved.startswith(shown.rstrip())


def test_without_vram_and_without_a_card_the_plan_is_for_the_cpu(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(model)]) == 0
    assert "There is no GPU" in capsys.readouterr().out


def test_context_and_slots_are_counted(model: Path) -> None:
    arguments = ["solve", str(model), "--vram", "1GB", "--context", "100", "--slots", "3", "-o", str(model / "plan.json")]
    assert main(arguments) == 0
    vram = load_placement(model / "plan.json").vram
    assert vram is not None
    assert {line.name: line.bytes for line in vram.lines}["KV cache"] == 100 * 3 * SPEC.kv_bytes_per_token()


def test_the_models_own_profile_is_found_and_a_named_one_is_read(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_profile(profile_of(), model / "mine.safetensors")
    assert main(["solve", str(model), "--profile", str(model / "mine.safetensors"), "-o", str(model / "plan.json")]) == 0
    assert "firing: dice" in capsys.readouterr().out
    fingerprint = load_placement(model / "plan.json").question.fingerprint
    save_profile(profile_of(), profile_path(fingerprint))
    assert main(["solve", str(model)]) == 0
    assert "firing: dice" in capsys.readouterr().out


def test_a_measured_machine_is_read_from_a_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "machine.json").write_text(MACHINE.model_dump_json())
    assert main(["solve", str(model), "--hardware", str(model / "machine.json")]) == 0
    assert "on test card and test cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--vram", "8"], "--vram: '8' has no unit; write 8GB or 8GiB"),
        (["--vram", "-1GB"], "--vram: '-1GB' is not a size"),
        (["--vram=-1GB"], "--vram: '-1GB' is not a size"),
        (["--vram", "0GB"], "--vram: '0GB' is nothing"),
        (["--vram", "8XB"], "--vram: '8XB' has an unknown unit"),
        (["--vram", "9" * 400 + "GB"], "--vram"),
        (["--vram"], "expected one argument"),
        (["--vram", "1KB"], "VRAM: "),
        (["--vram", "4MB", "--ram", "1MB"], "RAM: "),
        (["--ram", "0B"], "--ram: '0B' is nothing"),
        (["--context", "0"], "--context: '0' is not a whole number from 1"),
        (["--context", "-5"], "--context: '-5' is not a whole number from 1"),
        (["--context", "129"], "--context: 129 is more than the 128 tokens"),
        (["--slots", "many"], "--slots: 'many' is not a whole number from 1"),
        (["--gpu", "RTX 4091"], "--gpu: 'RTX 4091' is not a card we know; near it: RTX 4090"),
        (["--gpu", "RTX 4090", "--vram", "25GiB"], "is more than the 25.8 GB of RTX 4090"),
        (["--gpu", "RTX 4090", "--hardware", "x.json"], "not allowed with argument"),
        (["--hardware", "x.json"], "x.json: no such file"),
        (["--profile", "x.safetensors"], "x.safetensors: no such file"),
        (["--format", "int3"], "invalid choice: 'int3'"),
        (["--picture", "x.jpg"], "--picture: 'x.jpg' does not end in .png"),
        (["--surprise"], "unrecognized arguments: --surprise"),
        (["-o", "/dev/null/plan.json"], "/dev/null"),
    ],
)
def test_a_mistake_gets_one_clear_line(model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert main(["solve", str(model), *arguments]) == 2
    assert says in complaint(capsys)


def test_what_is_no_model_gets_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in complaint(capsys)
    assert main(["solve", str(tmp_path), "--vram", "1GB"]) == 2
    assert "config.json" in complaint(capsys)


def test_a_profile_of_another_model_gets_one_clear_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 2}))
    save_profile(profile_of(), model / "mine.safetensors")
    assert main(["solve", str(model), "--profile", str(model / "mine.safetensors")]) == 2
    assert "is of another model, for this one has 2 of 320" in complaint(capsys)


def test_a_plan_that_is_none_gets_one_clear_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(model / "config.json")]) == 2
    assert "is not one of our files; make it again with `placement solve`" in complaint(capsys)
    assert main(["show", str(model)]) == 2
    complaint(capsys)


def test_a_mistake_leaves_the_plan_that_was_there(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = model / "plan.json"
    main(["solve", str(model), "--vram", "4MB", "-o", str(kept)])
    before = kept.read_bytes()
    capsys.readouterr()
    assert main(["solve", str(model), "--vram", "1KB", "-o", str(kept)]) == 2
    assert kept.read_bytes() == before


def test_no_torch_is_imported_from_the_first_line_to_the_picture(model: Path) -> None:
    arguments = ["solve", str(model), "--vram", "4MB", "--picture", str(model / "plan.png")]
    program = f"import sys; from placement.cli import main; code = main({arguments!r}); assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "expected: " in done.stdout
