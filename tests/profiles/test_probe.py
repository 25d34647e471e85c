"""The probe fills in a hardware profile; small buffers stand for large ones, since the numbers are not judged here."""

import re
from pathlib import Path

import pytest
import torch

from cpu_ops import measure as cpu_measure
from models.errors import BadArtefact
from profiles import probe
from profiles.hardware import MEASURED_FORMATS, Around, Cpu, FormatPace, Gpu, HardwareProfile, Pace, WidthPace, load_hardware, save_hardware
from profiles.probe import cpu_name, described, measure_gpu, measure_hardware

PACE = Pace(streaming=5e10, scanning=4e10, gathering=(2e10, 2.5e10, 3e10, 3.5e10))
WIDTH = WidthPace(width=4096, region_seconds=2e-6, bank_seconds=3e-5, cached=PACE, memory=PACE)
AROUND = Around(layer_seconds=6e-5, step_seconds=2e-4)
INT4 = FormatPace(format="int4", cached=AROUND, memory=AROUND, widths=(WIDTH,))
CPU = Cpu(name="Some CPU", measured=True, cores=8, ram_bytes=32 * 10**9, formats=(INT4,))
GPU = Gpu(
    name="Some GPU",
    measured=True,
    vram_bytes=24 * 10**9,
    bandwidth=9e11,
    to_device=2.4e10,
    to_host=2.5e10,
    launch_seconds=4e-6,
    sync_seconds=1e-5,
)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment, on buffers a thousandth as large."""
    monkeypatch.setattr(cpu_measure, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(cpu_measure, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(probe, "LEVEL_BYTES", {"cached": 1 << 17, "memory": 1 << 20})
    monkeypatch.setattr(probe, "TRIAL_WIDTHS", (64, 128))


@pytest.mark.usefixtures("small_buffers")
def test_this_machine_can_be_measured_and_remembered(tmp_path: Path) -> None:
    profile = measure_hardware()
    assert profile.cpu.measured
    assert [each.format for each in profile.cpu.formats] == list(MEASURED_FORMATS)
    assert (profile.gpu is not None) == torch.cuda.is_available()
    save_hardware(profile, tmp_path / "h.json")
    assert load_hardware(tmp_path / "h.json") == profile


@pytest.mark.parametrize("number", ["Infinity", "NaN", "0.0", "5e-324", "-1.0"])
def test_a_bandwidth_no_machine_has_is_refused(number: str, tmp_path: Path) -> None:
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), tmp_path / "h.json")
    text = (tmp_path / "h.json").read_text()
    (tmp_path / "h.json").write_text(re.sub(r'"streaming": [^,]*', f'"streaming": {number}', text))
    with pytest.raises(BadArtefact, match=r"cpu\.formats.*streaming"):
        load_hardware(tmp_path / "h.json")


@pytest.mark.gpu
def test_a_gpu_can_be_measured() -> None:
    gpu = measure_gpu(torch.device("cuda"))
    assert gpu.bandwidth > gpu.to_device
    assert gpu.vram_bytes > 10**9


def test_a_cpu_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: Some CPU @ 3 GHz\n")
    assert cpu_name(tmp_path / "cpuinfo") == "Some CPU @ 3 GHz"
    assert cpu_name(tmp_path / "none")


def test_it_is_told_in_words_with_units() -> None:
    words = described(HardwareProfile(gpu=GPU, cpu=CPU))
    for expected in (
        "Some GPU",
        "24.0 GB",
        "900 GB/s",
        "24.0 GB/s from pinned",
        "4 µs",
        "Some CPU",
        "8 for this",
        "int4",
        "50.0 GB/s in order",
        "40.0 GB/s as gates",
        "25.0 GB/s for one neuron in ten",
        "a layer takes 94 µs",
        "a step 200 µs",
    ):
        assert expected in words


def test_a_machine_without_a_gpu_says_what_that_means() -> None:
    assert "every neuron will be computed on the CPU" in described(HardwareProfile(gpu=None, cpu=CPU))
