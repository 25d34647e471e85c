"""lm-eval's `local-completions` on a small task of ours: its scores are those of the model's own log probabilities."""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from tests.conformance.serving import Independent, Running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install '.[evaluation]'"),
]
MARGIN, RELATIVE = 2e-2, 5e-3  # of a log probability and token: our keys and values are kept in bfloat16, which shows most in rare tokens
QUESTIONS = [
    {"q": "import os\nimport", "choices": [" sys", " banana", "(((", "12"], "answer": 0},
    {"q": "for i in range(10):\n    print", "choices": ["(i)", "]]", " while", "é"], "answer": 0},
    {"q": "def f(self):\n    return self", "choices": [" import", "._value", "#!", " def"], "answer": 1},
    {"q": "try:\n    x = 1\nexcept ValueError", "choices": ["+", " lambda", ":", "0"], "answer": 2},
    {"q": "class A:\n    def __init__", "choices": [" from", "(self", "}", "%%"], "answer": 0},
    {"q": "if x is not", "choices": [" None", " def", " class", "**"], "answer": 3},
]
TEXTS = ["import sys\n\n\ndef main():\n    print(sys.argv)\n", "class Node:\n    def __init__(self, value):\n        self.value = value\n"]
CHOICE_TASK = """
task: small_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
TEXT_TASK = """
task: small_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


def evaluated(server: Running, folder: Path) -> dict[str, Any]:
    """What lm-eval says, its samples too; without any network."""
    (folder / "choice.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (folder / "choice.yaml").write_text(CHOICE_TASK.format(file=folder / "choice.jsonl"))
    (folder / "text.yaml").write_text(TEXT_TASK.format(file=folder / "text.jsonl"))
    told = {"model": "bundled", "base_url": f"{server.url}/v1/completions", "tokenizer": BUNDLED_MODEL, "max_length": 512}
    told |= {"tokenizer_backend": "huggingface", "num_concurrent": 1}
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--batch_size", "2", "--log_samples"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in told.items())]
    command += ["--tasks", "small_choice,small_text", "--include_path", str(folder), "--output_path", str(folder / "out")]
    quiet = {"HF_HOME": str(folder / "hf"), "OPENAI_API_KEY": "none"}
    quiet |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    (found,) = (folder / "out").rglob("results_*.json")
    results: dict[str, Any] = json.loads(found.read_text())["results"]
    (samples,) = (folder / "out").rglob("samples_small_choice_*.jsonl")
    return {"results": results, "choices": [json.loads(line) for line in samples.read_text().splitlines()]}


def likelihood(independent: Independent, tokens: Tokenizer, context: str, choice: str) -> tuple[float, int]:
    """Of `choice` after `context`, and its tokens: lm-eval tokenises both together and cuts where the context ends."""
    head = tokens.encode(context, special=False)
    whole = tokens.encode(context + choice, special=False)
    return float(independent.logprobs(whole)[len(head) - 1 :].sum()), len(whole) - len(head)


def test_the_scores_are_those_of_the_models_own_log_probabilities(
    server: Running, independent: Independent, tokens: Tokenizer, tmp_path: Path
) -> None:
    told = evaluated(server, tmp_path)
    right = 0
    for question, sample in zip(QUESTIONS, sorted(told["choices"], key=lambda one: one["doc_id"]), strict=True):
        own = [likelihood(independent, tokens, str(question["q"]), choice) for choice in question["choices"]]  # type: ignore[attr-defined]
        found = [float(answer[0][0] if isinstance(answer[0], list) else answer[0]) for answer in sample["resps"]]
        for (one, length), theirs in zip(own, found, strict=True):
            assert length > 0
            assert theirs == pytest.approx(one, abs=MARGIN * length, rel=RELATIVE)
        right += max(range(len(own)), key=lambda place: own[place][0]) == question["answer"]
    assert told["results"]["small_choice"]["acc,none"] == right / len(QUESTIONS)
    nats = -sum(float(independent.logprobs([0, *tokens.encode(text, special=False)]).sum()) for text in TEXTS)
    bits = nats / math.log(2) / sum(len(text.encode()) for text in TEXTS)
    assert told["results"]["small_text"]["bits_per_byte,none"] == pytest.approx(bits, abs=MARGIN)
    assert 0 < right < len(QUESTIONS)
