"""Which machine a plan is for."""

from pathlib import Path

import pytest

from models.errors import BadArtefact, BadValue
from placement.machine import Wish, machine
from profiles.hardware import HardwareProfile, save_hardware
from profiles.shelf import hardware_path
from tests.placement.makers import CPU, GPU, MACHINE, NO_GPU


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_measured_machine_is_taken_as_measured() -> None:
    save_hardware(MACHINE, hardware_path())
    assert machine(Wish(None, 10**9)) == MACHINE


def test_without_measurements_a_card_of_the_size_asked_for_stands_in() -> None:
    hardware = machine(Wish(None, 5 * 10**9))
    assert hardware.gpu is not None
    assert (hardware.gpu.vram_bytes, hardware.gpu.measured, hardware.cpu.measured) == (5 * 10**9, False, False)
    assert hardware.cpu.ram_bytes > 0


def test_a_machine_measured_without_a_gpu_gets_a_card_only_when_vram_is_asked_for() -> None:
    save_hardware(NO_GPU, hardware_path())
    assert machine(Wish(None, None)) == NO_GPU
    planned = machine(Wish(None, 10**9))
    assert planned.cpu == CPU
    assert planned.gpu is not None
    assert not planned.gpu.measured


def test_a_named_card_goes_with_this_machines_cpu() -> None:
    save_hardware(MACHINE, hardware_path())
    hardware = machine(Wish("rtx 4090", None))
    assert hardware.gpu is not None
    assert (hardware.gpu.name, hardware.cpu) == ("RTX 4090", CPU)


def test_a_hardware_file_is_taken_whole(tmp_path: Path) -> None:
    other = HardwareProfile(gpu=GPU.model_copy(update={"name": "theirs"}), cpu=CPU)
    save_hardware(other, tmp_path / "theirs.json")
    assert machine(Wish(str(tmp_path / "theirs.json"), None)) == other


def test_a_hardware_file_without_a_gpu_has_no_vram(tmp_path: Path) -> None:
    save_hardware(NO_GPU, tmp_path / "theirs.json")
    with pytest.raises(BadValue, match=r"--vram.*theirs.json describes a machine without a GPU"):
        machine(Wish(str(tmp_path / "theirs.json"), 10**9))


def test_a_hardware_file_that_is_not_there_is_not_taken_for_a_card() -> None:
    with pytest.raises(BadArtefact, match="no such file"):
        machine(Wish("nowhere.json", None))


def test_more_vram_than_the_card_has_is_refused() -> None:
    with pytest.raises(BadValue, match=r"--vram: '30.0 GB' is more than the 25.8 GB of RTX 4090"):
        machine(Wish("RTX 4090", 30 * 10**9))
