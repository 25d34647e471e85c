import pytest
import torch

from gpu_ops.transfer import Staging
from models.bits import FormatName
from models.errors import BadValue
from models.formats import FORMATS


@pytest.mark.parametrize("name", ["bf16", "int4"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_an_input_goes_down_and_a_sum_comes_back(name: FormatName, device: str) -> None:
    x = FORMATS[name].input(torch.randn(3, 64)).to(device)
    staging = Staging(torch.device(device), tokens=4, hidden=64)
    arrived = staging.send_down(x).wait()
    assert arrived.values.device.type == "cpu"
    assert torch.equal(arrived.decode(), x.decode().cpu())
    partial = arrived.decode() * 2
    assert torch.equal(staging.send_up(partial), partial.to(device))


@pytest.mark.gpu
def test_more_tokens_than_there_is_room_for() -> None:
    staging = Staging(torch.device("cuda"), tokens=4, hidden=64)
    with pytest.raises(BadValue, match="tokens"):
        staging.send_up(torch.zeros(5, 64))
