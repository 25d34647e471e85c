"""The smallest model: it runs, and the time around its kernels is a time."""

import pytest

from cpu_ops import measure, trial
from models.bits import FORMAT_NAMES, FormatName


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_what_is_around_the_kernels_takes_some_time(name: FormatName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.0)
    found = trial.around(name)
    assert 0 <= found.layer_seconds < 1
    assert 0 <= found.step_seconds < 1


def test_a_token_passes_through_every_layer() -> None:
    built = trial.Trial.build(3, trial.small_bank("bf16"))
    assert 0 <= built() < trial.WIDTH
    written = [bool(keys[0, :, trial.POSITION].any()) for keys in built.cache.keys]
    assert written == [True, True, True]
