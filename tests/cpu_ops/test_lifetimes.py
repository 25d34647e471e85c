"""Memory that kernels use by its address lives until they are done: what the allocator writes into freed memory changes nothing.

Numba frees an array after its last use, and an address is none (`alive` in `kernels/rows.py`). Freed too early, its contents mostly survive
until another thread takes the memory, so the text was wrong once in some thousand steps, and only under load.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cpu_ops
from models.bits import FORMAT_NAMES, FormatName
from models.packed import PackedModel
from tests.conftest import PackedOf
from tests.cpu_ops.test_replay import cold_model
from tests.models.running import run_in_pieces

ROOT = Path(__file__).parents[2]
SIZES = [23, 1, 1, 2, 4, 1, 17, 1, 14]  # prompts, tokens alone and together
RANK = 64  # of predictors


def digest(folder: Path, rank: int = 0) -> str:
    """Of the logits of a text, every neuron cold; computed, and then played back. `rank`: of predictors, if there are any."""
    packed = PackedModel.open(folder)
    model = cold_model(packed, repeats=False, rank=rank)
    tokens = torch.randint(0, packed.manifest.spec.vocab, (sum(SIZES),), generator=torch.Generator().manual_seed(1)).tolist()
    computed = run_in_pieces(model, tokens, SIZES)
    model.run = lambda step, segments, cache: cpu_ops.replayed(step, segments, cache, model.compute)
    played = run_in_pieces(model, tokens, SIZES)
    assert torch.equal(computed, played)
    return hashlib.sha256(computed.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize(("format_name", "rank"), [*((name, 0) for name in FORMAT_NAMES), ("int4", RANK)])
def test_what_freed_memory_holds_changes_nothing(format_name: FormatName, rank: int, packed_of: PackedOf) -> None:
    packed = packed_of("relu", format_name)
    told = subprocess.run(
        [sys.executable, "-c", f"from tests.cpu_ops.test_lifetimes import *; print(digest(Path({str(packed.folder)!r}), {rank}))"],
        env=os.environ | {"MALLOC_PERTURB_": "85"},  # glibc then fills what is freed with this byte
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split()[-1] == digest(packed.folder, rank)
