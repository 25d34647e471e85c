"""The bundled model behind `server run`, as a process of its own on a free port: what every kit of this folder talks to."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForCausalLM

from models.paths import BUNDLED_MODEL

START = "import sys; from server.cli import main; sys.exit(main())"
CHATML = Path(__file__).parent.parent / "chatml.jinja"


@dataclass(frozen=True, slots=True)
class Running:
    url: str

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}{path}", verify=False).raise_for_status().json()
        return found

    def until_idle(self) -> None:
        while self.get("/props")["slots"]["unfinished"]:
            pass


@contextmanager
def serving(*flags: str) -> Iterator[Running]:
    """In float32, so that there is an independent model to hold it against; on two threads, without a GPU."""
    command = [sys.executable, "-c", START, "run", "bundled", "--format", "float32", "--port", "0", "--threads", "2", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = next(match[1] for line in process.stdout if (match := re.search(r"ready at (\S+)/v1\.", line)))
            yield Running(address)
        finally:
            process.terminate()
            process.wait(60)


class Independent:
    """The same model by transformers, which shares no line with ours."""

    def __init__(self) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logprobs(self, ids: list[int]) -> torch.Tensor:
        """[T - 1]: of each token after the first."""
        logits = self.model(torch.tensor([ids])).logits[0].double()
        found: torch.Tensor = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0]
        return found

    @torch.inference_mode()
    def greedy(self, ids: list[int], count: int) -> list[int]:
        tokens = list(ids)
        for _ in range(count):
            tokens.append(int(self.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        return tokens[len(ids) :]
