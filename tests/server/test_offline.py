"""`server bench` and `server perplexity`: what they print, over a small checkpoint; and the perplexity an independent model finds."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import server.load
from models.errors import BadValue
from models.tokenizer import Tokenizer
from profiles.hardware import HardwareProfile, save_hardware
from profiles.shelf import hardware_path
from server.bench import Plan, Prompts
from server.cli import build_parser, main
from server.config import read_config
from server.offline import variants
from server.perplexity import windows
from server.table import table
from tests.families import make_variant
from tests.placement.makers import CPU

TEXT = "The thermocline parts warm water from cold. " * 12


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(server.load, "PROFILE_TOKENS", 600)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
    (tmp_path / "tiny").mkdir()
    return str(make_variant(tmp_path / "tiny", "relu"))


def rows(said: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("| ")]


def test_a_table_has_a_row_for_every_test_of_every_format(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--prompt", "8", "--depth", "4,16", "--write", "3", "--rounds", "2", "--threads", "1", "--formats", "float32,int8"]
    assert main(["bench", model, *flags]) == 0
    head, *found = rows(capsys.readouterr().out)
    assert head == ["model", "format", "neurons", "test", "tokens/s", "±", "expected"]
    tests = ["prompt 8", "decode 3 after 4", "decode 3 after 16"]
    assert [(row[1], row[3]) for row in found] == [(name, test) for name in ("float32", "int8") for test in tests]
    assert all(row[2] == "CPU only" and float(row[4].replace(",", "")) > 0 for row in found)
    assert [bool(row[6]) for row in found] == [False, True, True] * 2


def test_the_perplexity_is_that_of_an_independent_model(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text(TEXT)
    assert main(["perplexity", str(tmp_path / "text"), model, "--context", "32", "--threads", "1", "--formats", "float32,int4"]) == 0
    said = capsys.readouterr().out
    exact, coarse = rows(said)[1:]
    nats = independent(Path(model), 32)
    assert float(exact[3]) == pytest.approx(math.exp(nats.mean()), rel=2e-3)
    assert float(exact[4]) == pytest.approx(math.exp(nats.mean()) * nats.std() / math.sqrt(len(nats)), rel=2e-2)
    assert (exact[5], exact[1], coarse[1]) == ("+0.00%", "float32", "int4")
    assert float(coarse[3]) != float(exact[3])
    assert f"{len(nats)} tokens of" in said


@torch.inference_mode()
def independent(folder: Path, context: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """-log p of every token but the first of each window, by transformers."""
    tokenizer = Tokenizer.open(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    parts = []
    for window in windows(tokenizer.encode(TEXT, special=False), tokenizer, context):
        logits = theirs(torch.tensor([window])).logits[0].double().log_softmax(-1)
        parts.append(-logits[:-1].gather(1, torch.tensor(window)[1:, None])[:, 0].numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["bench", "--prompt", "0"], "--prompt"),
        (["bench", "--formats", "int3"], "--formats"),
        (["bench", "--vrams", "8"], "no unit"),
        (["bench", "--port", "8"], "--port"),
        (["perplexity"], "FILE"),
        (["perplexity", "/no/such/text"], "No such file"),
        (["perplexity", "/bin/true"], "UTF-8"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1


def test_lengths_over_the_context_and_texts_without_tokens_are_said(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, "--context", "32", "--prompt", "32", "--threads", "1"]) == 2
    assert "context of 32" in capsys.readouterr().err
    (tmp_path / "empty").write_text("")
    assert main(["perplexity", str(tmp_path / "empty"), model, "--threads", "1"]) == 2
    assert "longer text" in capsys.readouterr().err


def test_every_format_meets_every_size() -> None:
    config = read_config(build_parser().parse_args(["bench", "--format", "bf16"]))
    assert [(one.format, one.vram_bytes) for one in variants(config, None, None)] == [("bf16", None)]
    found = [(one.format, one.vram_bytes) for one in variants(config, ["int4", "int8"], ["4GB", "8GB"])]
    assert found == [(name, size) for name in ("int4", "int8") for size in (4 * 10**9, 8 * 10**9)]
    with pytest.raises(BadValue):
        variants(config, ["int4", ""], None)


def test_prompts_are_never_the_same_twice() -> None:
    prompts = Prompts(100)
    assert len({tuple(prompts.next(20)) for _ in range(50)}) == 50
    assert Plan((8,), (4,), 3, 2).rounds == 2


def test_a_table_is_markdown() -> None:
    assert list(table(("a", "long"), [("bb", "1")])) == ["| a  | long |", "|----|-----:|", "| bb |    1 |"]
