"""`server run` as a person runs it: a process, a port, a signal."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from benchmarks.wire import Gone, connected, post
from profiles.hardware import HardwareProfile, save_hardware
from profiles.shelf import hardware_path
from tests.families import make_variant
from tests.placement.makers import CPU

START = "import sys, server.load; server.load.PROFILE_TOKENS = 600; from server.cli import main; sys.exit(main())"


@contextmanager
def running(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address in its last line before it is ready."""
    command = [sys.executable, "-c", START, "run", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = next(match for line in process.stdout if (match := re.search(r"ready at (\S+)\.", line)))
            yield process, found[1]
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_stream_finish_and_then_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
    (tmp_path / "tiny").mkdir()
    model = str(make_variant(tmp_path / "tiny", "relu"))
    with running(model, "--port", "0", "--threads", "1") as (process, url), openai.OpenAI(base_url=url, api_key="none") as client:
        stream = iter(
            client.completions.create(model="tiny", prompt="x", max_tokens=100, extra_body={"ignore_eos": True}, logprobs=0, stream=True)
        )
        first = next(stream)
        process.send_signal(number)
        rest = list(stream)
        assert rest[-1].choices[0].finish_reason == "length"
        counted = [chunk.choices[0].logprobs for chunk in (first, *rest)]
        assert sum(len(logprobs.tokens or []) for logprobs in counted if logprobs) == 100
        assert process.wait(60) == 0


async def ask_until_gone(url: str, *, reads: bool) -> list[int]:
    """Asks for streams, one after the other, until the server hangs up; the statuses it answered with. Or reads nothing of the first."""
    body, statuses = json.dumps({"prompt": "x", "max_tokens": 100, "ignore_eos": True, "stream": True}).encode(), list[int]()
    try:
        while True:
            async with connected(url) as wire:
                await wire.send(post("/v1/completions", body))
                if not reads:
                    await asyncio.sleep(60)
                statuses.append(await wire.head())
                await wire.body()
    except (Gone, ConnectionError):
        return statuses


@pytest.mark.slow
def test_told_to_stop_under_load_it_is_gone_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve clients that ask again and again, and two that read nothing; --drain 2."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
    (tmp_path / "tiny").mkdir()
    model = str(make_variant(tmp_path / "tiny", "relu"))

    async def story(process: subprocess.Popen[str], url: str) -> list[list[int]]:
        silent = [asyncio.create_task(ask_until_gone(url, reads=False)) for _ in range(2)]
        clients = [asyncio.create_task(ask_until_gone(url, reads=True)) for _ in range(12)]
        await asyncio.sleep(1)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
        found = await asyncio.wait_for(asyncio.gather(*clients), 10)
        for task in silent:
            task.cancel()
        return found

    with running(model, "--port", "0", "--threads", "1", "--drain", "2", "--queue", "4") as (process, address):
        found = asyncio.run(story(process, address.removesuffix("/v1")))
    assert {status for statuses in found for status in statuses} <= {200, 503}
    assert sum(status == 200 for statuses in found for status in statuses) > 5


@pytest.mark.slow
def test_a_folder_that_is_no_model_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from server.cli import main; sys.exit(main())", "run", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
