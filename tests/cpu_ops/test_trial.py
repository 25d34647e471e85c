"""The smallest models: they run, and the time around their kernels is a time."""

import pytest
import torch

from cpu_ops import measure, trial
from models.bits import BITS, FORMAT_NAMES, FormatName


def memory_for(name: FormatName, layers: int, width: int) -> torch.Tensor:
    return torch.empty(layers * trial.ROWS_OF_WIDTH * width * BITS[name].row_bytes(width), dtype=torch.uint8)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_what_is_around_the_kernels_takes_some_time(name: FormatName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.0)
    found = trial.around(name, memory_for(name, 4, 64), 64)
    assert 0 <= found.layer_seconds < 1
    assert 0 <= found.step_seconds < 1


@pytest.mark.parametrize("width", [64, 128])
def test_a_token_passes_through_every_layer(width: int) -> None:
    layer = trial.Layer.over(memory_for("bf16", 1, width), "bf16", width)
    built = trial.Trial.build([layer] * 3)
    assert 0 <= built() < trial.VOCAB
    assert [bool(keys[0, :, trial.POSITION].any()) for keys in built.cache.keys] == [True, True, True]
    assert (len(layer.spine.qkv), len(layer.spine.o), len(layer.firing.bank)) == (3 * width, width, width)
