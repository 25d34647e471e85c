"""From a checkpoint to a ready engine: what is missing is made, what is there is used, what is wrong is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

import server.load
from models.errors import BadCheckpoint, BadValue, DoesNotFit
from models.paths import pulled_folder
from models.tokenizer import Tokenizer
from profiles.hardware import HardwareProfile, load_hardware, save_hardware
from profiles.others import Others
from profiles.shelf import hardware_path, profile_path
from server.config import Config
from server.load import Ready, load
from server.sequence import Params
from server.watching import Watched
from tests.families import make_variant
from tests.gguf_files import Style, convert
from tests.placement.makers import CPU
from tests.server.fakes import build_sequence


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A small checkpoint, an empty home but for a measured machine, and a short text to profile on."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(server.load, "PROFILE_TOKENS", 600)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
    (tmp_path / "tiny").mkdir()
    return Config(
        model=str(make_variant(tmp_path / "tiny", "relu")),
        format="float32",
        host="127.0.0.1",
        port=0,
        vram_bytes=None,
        ram_bytes=None,
        context=None,
        slots=2,
        threads=1,
        queue=4,
        prompt_chunk=16,
        drain_seconds=1,
    )


def written(ready: Ready, tokenizer: Tokenizer) -> list[list[int]]:
    """Greedy tokens of three prompts through two slots."""
    prompts = ([1, 2, 3], [4] * 40, [5])
    sequences = [build_sequence(tokenizer, prompt, Params(max_tokens=8, temperature=0))[0] for prompt in prompts]
    for sequence in sequences:
        ready.engine.submit(sequence)
    while not ready.engine.idle:
        ready.engine.step()
    return [sequence.output for sequence in sequences]


def test_everything_missing_is_made_and_the_next_start_finds_it(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    first = load(config)
    assert "no GPU" in (said := capsys.readouterr().out)
    assert "recording" in said
    assert first.plan.corpus is not None
    assert first.plan.hot == (0, 0)
    again = load(config)
    assert "recording" not in capsys.readouterr().out
    assert again.plan == first.plan
    tokens = written(first, first.tokenizer)
    assert [len(one) for one in tokens] == [8, 8, 8]
    assert written(again, again.tokenizer) == tokens


def test_with_logs_for_programs_nothing_but_those_goes_where_logs_go(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    load(replace(config, log_format="json"))
    said = capsys.readouterr()
    assert said.err == ""
    assert "recording" in said.out


def test_the_chat_template_that_was_asked_for_wins_over_the_models_own(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken one that was asked for is an error; a broken one of the model costs its chats only, and that is said."""
    own, asked = Path(config.model) / "chat_template.jinja", tmp_path / "asked.jinja"
    own.write_text("own")
    asked.write_text("asked")
    first = load(replace(config, chat_template=asked))
    rendered = [load(config).chat, first.chat]
    assert [template.render([]) for template in rendered if template] == ["own", "asked"]
    capsys.readouterr()
    broken = replace(first.tokenizer, chat_template="{% for %}")
    assert server.load.chat_template(None, broken, tmp_path) is None
    assert "Chats will be refused" in capsys.readouterr().out
    asked.write_text("{% for %}")
    with pytest.raises(BadCheckpoint, match=r"asked\.jinja"):
        load(replace(config, chat_template=asked))


def test_another_question_gets_another_plan_and_a_damaged_one_is_made_again(config: Config) -> None:
    first = load(config)
    assert first.plan.question.context == 128
    shorter = load(replace(config, context=64))
    assert shorter.plan.question.context == 64
    for path in (profile_path(first.manifest.fingerprint).parents[1] / "plans").iterdir():
        path.write_text("{")
    assert load(config).plan.hot == first.plan.hot


def test_what_cannot_be_served_is_said(config: Config, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="neither a model directory"):
        load(replace(config, model=str(tmp_path / "nothing")))
    with pytest.raises(BadValue, match="128 tokens"):
        load(replace(config, context=1000))
    with pytest.raises(DoesNotFit, match="RAM"):
        load(replace(config, ram_bytes=100_000))


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(config: Config) -> None:
    path = Path(config.model) / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["<extra>"] = 5000
    path.write_text(json.dumps(content))
    with pytest.raises(BadCheckpoint, match=r"gives token ids up to 5000, but the model knows only 290 tokens"):
        load(config)


def test_a_hardware_file_of_an_older_version_is_measured_anew(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware_path().write_text('{"version": 1}')
    measured = HardwareProfile(gpu=None, cpu=CPU)
    monkeypatch.setattr(server.load, "measure_hardware", lambda: measured)
    monkeypatch.setattr(Others, "share", lambda self: 0.0)
    load(config)
    assert load_hardware(hardware_path()) == measured


def test_what_is_held_is_what_was_planned(config: Config) -> None:
    """Bytes of the tensors themselves, beside the lines of the plan."""
    ready = load(config)
    lines = {line.name: line.bytes for line in ready.plan.ram.lines}
    assert ready.held.hot == ready.plan.hot
    assert ready.held.device == "cpu"
    assert (ready.held.cold_bytes, ready.held.hot_bytes) == (lines["cold neurons"], 0)
    assert ready.held.kv_bytes == lines["KV cache"]
    assert ready.held.spine_bytes == lines["spine"]
    assert ready.engine.numbers.gpu_seconds == 0
    written(ready, ready.tokenizer)
    assert ready.engine.numbers.cpu_seconds > 0
    assert ready.engine.numbers.waiting_seconds == 0


def test_what_was_tried_while_loading_is_in_no_map_and_no_share(config: Config) -> None:
    ready = load(config)
    watching = cast(Watched, ready.engine._forward).ffn
    assert (watching._hot, watching._cold) == (0, 0)
    assert watching.fired_cold > 0  # it was looked at once, for the kernels' sake …
    written(ready, ready.tokenizer)
    assert ready.engine.numbers.fired_cold == 0  # … and nobody looks


def test_a_machine_that_was_busy_while_it_was_measured_is_not_remembered(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware_path().unlink()
    monkeypatch.setattr(server.load, "measure_hardware", lambda: HardwareProfile(gpu=None, cpu=CPU))
    monkeypatch.setattr(Others, "share", lambda self: 0.4)
    load(config)
    assert "Other programs took 40% of this machine's cores" in capsys.readouterr().out
    assert not hardware_path().exists()


def test_a_gguf_file_answers_as_the_folder_it_was_made_from(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PowerInfer's file, with its tokenizer; its counts are the profile, and its predictors, which here name every neuron, serve."""
    (tmp_path / "file" / "activation").mkdir(parents=True)
    for layer in range(2):
        torch.save(torch.arange(96) + layer, tmp_path / "file" / "activation" / f"activation_{layer}.pt")
    style = Style(powerinfer=True, pre="gpt-2", ranks=(32, 32), threshold=-1e9)
    path = convert(Path(config.model), tmp_path / "file" / "relu.gguf", "llama", style)
    folder, file = load(config), load(replace(config, model=str(path)))
    assert "taking the counts in" in capsys.readouterr().out
    assert file.manifest.name == "relu"
    assert written(file, file.tokenizer) == written(folder, folder.tokenizer)
    predicted = load(replace(config, model=str(path), selection="predictor"))
    assert written(predicted, predicted.tokenizer) == written(file, file.tokenizer)
    pulled_folder("lab/relu").mkdir(parents=True)
    (pulled_folder("lab/relu") / path.name).symlink_to(path)
    by_name = load(replace(config, model="lab/relu"))
    assert by_name.manifest.fingerprint == file.manifest.fingerprint
    assert written(by_name, by_name.tokenizer) == written(file, file.tokenizer)
    assert file.tokenizer.encode("the neurons") == folder.tokenizer.encode("the neurons")


def test_the_default_format_is_the_files_own(config: Config, tmp_path: Path) -> None:
    path = convert(Path(config.model), tmp_path / "small.gguf", "llama", Style("Q4_0", powerinfer=True, pre="gpt-2"))
    ready = load(replace(config, model=str(path), format=None))
    assert ready.manifest.formats.neurons == "int4"
    assert [len(one) for one in written(ready, ready.tokenizer)] == [8, 8, 8]
