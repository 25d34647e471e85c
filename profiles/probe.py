"""Measuring this machine in seconds: memory, CPU and, if PyTorch finds one, the GPU. The result is `profiles/hardware.py`'s."""

import platform
from dataclasses import asdict
from pathlib import Path

import torch

import cpu_ops
from cpu_ops import measure as cpu_measure
from cpu_ops import trial
from cpu_ops.topology import usable_cores
from gpu_ops import measure as gpu_measure
from models.bits import FormatName
from models.units import format_bytes, format_seconds
from profiles.hardware import DENSITIES, LEVEL_BYTES, MEASURED_FORMATS, WIDTHS, Around, Cpu, FormatPace, Gpu, HardwareProfile, WidthPace
from profiles.memory import ram_bytes

TRIAL_WIDTHS = (64, 1024)  # kilobytes and megabytes a layer
CPUINFO = Path("/proc/cpuinfo")


def measure_hardware() -> HardwareProfile:
    """Takes ten to fifteen seconds, with every core busy."""
    return HardwareProfile(gpu=measure_gpu(torch.device("cuda")) if torch.cuda.is_available() else None, cpu=measure_cpu())


def measure_cpu() -> Cpu:
    cpu_ops.warm_up(MEASURED_FORMATS)
    memory = cpu_measure.allocate_buffer(LEVEL_BYTES["memory"])
    return Cpu(
        name=cpu_name(),
        measured=True,
        cores=usable_cores(),
        ram_bytes=ram_bytes(),
        formats=tuple(measure_format(name, memory) for name in MEASURED_FORMATS),
    )


def measure_format(name: FormatName, memory: torch.Tensor) -> FormatPace:
    """`memory`: uint8, which is written over."""
    small, large = (trial.around(name, memory, width) for width in TRIAL_WIDTHS)
    found = [cpu_measure.width_pace(name, width, memory, LEVEL_BYTES["cached"], DENSITIES) for width in WIDTHS]
    return FormatPace(
        format=name,
        cached=Around.model_validate(asdict(small)),
        memory=Around.model_validate(asdict(large)),
        widths=tuple(WidthPace.model_validate(asdict(each)) for each in found),
    )


def measure_gpu(device: torch.device) -> Gpu:
    described = torch.cuda.get_device_properties(device)
    return Gpu(
        name=described.name,
        measured=True,
        vram_bytes=described.total_memory,
        bandwidth=gpu_measure.memory_bytes_per_second(device),
        to_device=gpu_measure.to_device_bytes_per_second(device),
        to_host=gpu_measure.to_host_bytes_per_second(device),
        launch_seconds=gpu_measure.launch_seconds(device),
        sync_seconds=gpu_measure.sync_seconds(device),
    )


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """As the kernel calls it, or else the architecture's name."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "unknown CPU")


def described(profile: HardwareProfile) -> str:
    """The profile in words, with units, a line a number."""
    return "\n".join([*gpu_lines(profile.gpu), "", *cpu_lines(profile.cpu)])


def gpu_lines(gpu: Gpu | None) -> list[str]:
    if gpu is None:
        return ["GPU                none that PyTorch can use: every neuron will be computed on the CPU"]
    return [
        f"GPU                {gpu.name}",
        f"  memory           {format_bytes(gpu.vram_bytes)}",
        f"  reads it at      {format_bytes(round(gpu.bandwidth))}/s",
        f"  copies in        {format_bytes(round(gpu.to_device))}/s from pinned memory",
        f"  copies out       {format_bytes(round(gpu.to_host))}/s to pinned memory",
        f"  a launch takes   {format_seconds(gpu.launch_seconds)}",
        f"  waiting takes    {format_seconds(gpu.sync_seconds)}",
    ]


def cpu_lines(cpu: Cpu) -> list[str]:
    """Of the kernels the longest rows, from memory: what a large model meets. The file has the rest."""
    lines = [
        f"CPU                {cpu.name}",
        f"  cores            {cpu.cores} for this process",
        f"  memory           {format_bytes(cpu.ram_bytes)}",
    ]
    return lines + [line for each in cpu.formats for line in format_lines(each)]


def format_lines(pace: FormatPace) -> list[str]:
    longest = pace.widths[-1]
    memory, layer_seconds = longest.memory, pace.memory.layer_seconds + 2 * longest.region_seconds + longest.bank_seconds
    gathered = memory.gathering[DENSITIES.index(0.1)]
    return [
        f"  {pace.format:<6} rows      {format_bytes(round(memory.streaming))}/s in order",
        f"                   {format_bytes(round(memory.scanning))}/s as gates, {format_bytes(round(gathered))}/s for one neuron in ten",
        f"                   besides, a layer takes {format_seconds(layer_seconds)}, a step {format_seconds(pace.memory.step_seconds)}",
    ]
