"""`server` and `thermocline` at the command line: every mistake is one line and exit code 2, before anything is loaded."""

import asyncio
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numba
import pytest
import torch
from torch import Tensor

import server.cli
from cpu_ops.topology import set_threads
from models.paths import pulled_folder
from models.step import Step
from models.tokenizer import Tokenizer
from server.api.app import Door
from server.bridge import Bridge
from server.cli import build_parser, main, served_name, umbrella, welcome
from server.config import read_config
from server.listening import listening
from server.load import Ready
from server.sequence import Params
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, build_engine, build_sequence, running_service


def complaint(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake ends in."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--vram", "8"], "has no unit"),
        (["--vram", "-1GB"], "--vram"),
        (["--ram", "lots"], "--ram"),
        (["--slots", "0"], "--slots"),
        (["--slots", "1000"], "--max-prompt-chunk"),
        (["--context", "-5"], "--context"),
        (["--port", "70000"], "--port"),
        (["--port", "http"], "--port"),
        (["--queue", "0"], "--queue"),
        (["--max-prompt-chunk", "100000"], "--max-prompt-chunk"),
        (["--format", "int3"], "int3"),
        (["--frobnicate"], "--frobnicate"),
        (["a", "b"], "unrecognized"),
    ],
)
def test_a_bad_flag_is_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in complaint(["run", *argv], capsys)


def test_no_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--help" in complaint([], capsys)


def test_a_port_in_use_is_found_before_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    with listening("127.0.0.1", 0) as taken:
        line = complaint(["run", "/no/such/model", "--port", str(taken.getsockname()[1])], capsys)
    assert "port is in use" in line


def test_the_umbrella_hands_on_and_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert umbrella([]) == 0
    assert "models,profiles,placement,server" in capsys.readouterr().out
    assert umbrella(["placemat"]) == 2
    assert "'placemat' is not a command" in capsys.readouterr().err
    assert umbrella(["server", "run", "--vram", "8"]) == 2
    assert "has no unit" in capsys.readouterr().err


class CountingModel(MemoryModel):
    """Notes how many threads kernels and torch have where it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[tuple[int, int]] = set()

    def __call__(self, step: Step) -> Tensor:
        self.threads.add((numba.get_num_threads(), torch.get_num_threads()))
        return super().__call__(step)


@pytest.mark.parametrize("asked", [1, 2])
def test_threads_asked_for_reach_kernels_and_torch_where_the_model_runs(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    model, most = CountingModel(), set_threads()

    async def one_request(bridge: Bridge) -> None:
        sequence, _ = build_sequence(tokenizer, [1, 2], Params(max_tokens=3))
        assert [delta.finish async for _, delta in bridge.submit((sequence,)).events()][-1] == "length"

    ready = SimpleNamespace(engine=build_engine(model), plan=None, manifest=SimpleNamespace(name="fake"))
    monkeypatch.setattr(server.cli, "load", lambda config: ready)
    monkeypatch.setattr(server.cli, "report", str)
    monkeypatch.setattr(server.cli, "service_of", lambda ready, bridge, config: bridge)
    monkeypatch.setattr(server.cli, "serve", lambda bridge, taken, door, drain: asyncio.run(asyncio.wait_for(one_request(bridge), 20)))
    try:
        assert main(["run", "--port", "0", "--threads", str(asked)]) == 0
    finally:
        set_threads()
    assert model.threads == {(min(asked, most),) * 2}


def test_a_client_calls_the_model_as_it_was_told_or_pulled_or_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the name comes before what was pulled, as it does when the model is looked for."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pulled_folder("lab/small").mkdir(parents=True)
    ready = cast(Ready, SimpleNamespace(manifest=SimpleNamespace(name="own")))

    def called(*flags: str) -> str:
        return served_name(read_config(build_parser().parse_args(["run", *flags])), ready)

    assert called("lab/small") == "lab/small"
    assert called("lab/other") == called("folder") == called() == "own"
    assert called("lab/small", "--name", "gpt-3.5-turbo-instruct") == "gpt-3.5-turbo-instruct"
    (tmp_path / "lab" / "small").mkdir(parents=True)
    assert called("lab/small") == "own"


@pytest.mark.parametrize("locked", [False, True])
def test_the_line_to_try_works_in_a_shell(tokenizer: Tokenizer, locked: bool) -> None:
    """With keys it names the header, not the key, which the shell knows as $KEY."""
    key = "sk-'very \" secret"
    with running_service(tokenizer, MemoryModel()) as service, live_server(service, Door(keys=(key,) if locked else ())) as url:
        said = welcome(url, "fake", locked=locked)
        shell = said.splitlines()[1].strip().replace("curl ", "curl -s ", 1)
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True, env={**os.environ, "KEY": key})
    assert json.loads(done.stdout)["usage"]["completion_tokens"] > 0
    assert ("Authorization" in said, "$KEY" in said) == (locked, locked)
