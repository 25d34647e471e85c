import pytest

import cpu_ops
from cpu_ops import measure
from cpu_ops.kernels import decode, ffn, linear
from models.bits import FORMAT_NAMES, FormatName


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_rates_are_between_a_floppy_and_a_cache(name: FormatName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    for rate in (measure.streaming_bytes_per_second(name, 2**20), measure.gathering_bytes_per_second(name, 2**20)):
        assert 1e5 < rate < 1e13


def test_a_region_takes_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    assert 0 < measure.region_seconds() < 10


def test_warming_up_leaves_nothing_to_compile() -> None:
    from_all = list(FORMAT_NAMES)
    cpu_ops.warm_up(from_all)
    before = compiled_signatures()
    cpu_ops.warm_up(from_all)
    assert compiled_signatures() == before > 0


def compiled_signatures() -> int:
    return sum(len(getattr(kernel, "signatures", [])) for kernel in (decode.decode, ffn.ffn, linear.linear))
