import pytest
import torch

from gpu_ops import measure

CPU = torch.device("cpu")


def test_rates_and_times_on_a_device_that_is_only_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    for rate in (measure.memory_bytes_per_second, measure.to_device_bytes_per_second, measure.to_host_bytes_per_second):
        assert 1e5 < rate(CPU, 2**16) < 1e13
    assert 0 < measure.launch_seconds(CPU) < 1
    assert 0 < measure.sync_seconds(CPU) < 1


@pytest.mark.gpu
def test_rates_on_a_gpu() -> None:
    cuda = torch.device("cuda")
    assert measure.memory_bytes_per_second(cuda) > 1e10
    assert measure.to_device_bytes_per_second(cuda) > 1e8
    assert measure.to_host_bytes_per_second(cuda) > 1e8
    assert measure.launch_seconds(cuda) < measure.sync_seconds(cuda)
