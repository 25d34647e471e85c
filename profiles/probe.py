"""Measuring this machine in seconds: memory, CPU and, if PyTorch finds one, the GPU. The result is `profiles/hardware.py`'s."""

import platform
from pathlib import Path

import torch

from cpu_ops import measure as cpu_measure
from cpu_ops.topology import usable_cores
from gpu_ops import measure as gpu_measure
from models.units import format_bytes, format_seconds
from profiles.hardware import Cpu, Gpu, HardwareProfile
from profiles.memory import ram_bytes

CPUINFO = Path("/proc/cpuinfo")


def measure_hardware() -> HardwareProfile:
    """Takes a few seconds, with every core busy."""
    return HardwareProfile(gpu=measure_gpu(torch.device("cuda")) if torch.cuda.is_available() else None, cpu=measure_cpu())


def measure_cpu() -> Cpu:
    return Cpu(
        name=cpu_name(),
        measured=True,
        cores=usable_cores(),
        ram_bytes=ram_bytes(),
        streaming=cpu_measure.streaming_bytes_per_second(),
        gathering=cpu_measure.gathering_bytes_per_second(),
        region_seconds=cpu_measure.region_seconds(),
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
    return [
        f"CPU                {cpu.name}",
        f"  cores            {cpu.cores} for this process",
        f"  memory           {format_bytes(cpu.ram_bytes)}",
        f"  rows in order    {format_bytes(round(cpu.streaming))}/s through the int4 kernel",
        f"  scattered rows   {format_bytes(round(cpu.gathering))}/s, one in ten of them",
        f"  a call takes     {format_seconds(cpu.region_seconds)}",
    ]
